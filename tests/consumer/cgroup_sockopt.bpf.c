// SPDX-License-Identifier: Apache-2.0
//
// Profile cgroup-network: socket options and TCP events of a cgroup. What a process asked for is
// kept with its socket and shown to it, whatever it was really given.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define SOL_SOCKET 1
#define SO_PRIORITY 12

struct state {
    __u32 asked, retransmits;
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct state);
} states SEC(".maps");

__u32 highest = 6;  // .data

SEC("cgroup/setsockopt")
int set(struct bpf_sockopt *ctx)
{
    __u32 *value = ctx->optval;
    struct state *state;

    if (ctx->level != SOL_SOCKET || ctx->optname != SO_PRIORITY || !ctx->sk)
        return 1;
    if ((void *)(value + 1) > ctx->optval_end)
        return 0;
    state = bpf_sk_storage_get(&states, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (state)
        state->asked = *value;
    if (*value > highest)
        *value = highest;
    return 1;
}

SEC("cgroup/getsockopt")
int get(struct bpf_sockopt *ctx)
{
    __u32 *value = ctx->optval;
    struct state *state;

    if (ctx->level != SOL_SOCKET || ctx->optname != SO_PRIORITY || !ctx->sk)
        return 1;
    state = bpf_sk_storage_get(&states, ctx->sk, 0, 0);
    if (state && (void *)(value + 1) <= ctx->optval_end)
        *value = state->asked;
    return 1;
}

SEC("sockops")
int events(struct bpf_sock_ops *ctx)
{
    struct state *state;

    switch (ctx->op) {
    case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_RETRANS_CB_FLAG);
        break;
    case BPF_SOCK_OPS_RETRANS_CB:
        if (!ctx->sk)
            break;
        state = bpf_sk_storage_get(&states, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (state)
            state->retransmits += 1;
    }
    return 1;
}

char _license[] SEC("license") = "GPL";

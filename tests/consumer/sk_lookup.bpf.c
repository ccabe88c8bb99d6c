// SPDX-License-Identifier: Apache-2.0
//
// Profile sk-lookup: one listening socket for many addresses and ports. Prefixes and ports name a
// service, and a sockmap (or, for services by name, a sockhash) has its socket.
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#define AF_INET 2

struct prefix {
    __u32 length;
    __be32 address;
};

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct prefix);
    __type(value, __u32);
    __uint(max_entries, 1024);
} services_by_prefix SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 1024);
} services_by_port SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 64);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __type(key, struct prefix);
    __type(value, __u64);
    __uint(max_entries, 64);
} sockets_by_address SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 3);
} outcomes SEC(".maps");

enum outcome { NO_SERVICE, NO_SOCKET, ASSIGNED };

const volatile __u32 first_port = 1024;  // .rodata

static __always_inline int count(__u32 outcome)
{
    __u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);

    if (counter)
        *counter += 1;
    return SK_PASS;
}

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
    struct prefix prefix = {.length = 32};
    __u32 port = ctx->local_port, *service;
    struct bpf_sock *sk;
    long error;

    if (ctx->family != AF_INET || ctx->protocol != IPPROTO_TCP || port < first_port)
        return SK_PASS;
    prefix.address = ctx->local_ip4;
    sk = bpf_map_lookup_elem(&sockets_by_address, &prefix);
    if (!sk) {
        service = bpf_map_lookup_elem(&services_by_prefix, &prefix);
        if (!service)
            service = bpf_map_lookup_elem(&services_by_port, &port);
        if (!service)
            return count(NO_SERVICE);
        sk = bpf_map_lookup_elem(&sockets, service);
    }
    if (!sk)
        return count(NO_SOCKET);
    error = bpf_sk_assign(ctx, sk, 0);
    bpf_sk_release(sk);
    if (error)
        return SK_DROP;
    return count(ASSIGNED);
}

char _license[] SEC("license") = "GPL";

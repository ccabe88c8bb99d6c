// SPDX-License-Identifier: Apache-2.0
//
// Profile cgroup-network: which sockets a cgroup's processes may have, and how many they hold.
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SOCK_RAW 3

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u16);
    __type(value, __u8);
    __uint(max_entries, 64);
} reserved_ports SEC(".maps");

__u64 created, released;  // .bss

static __always_inline int bound(__u16 port)
{
    return !bpf_map_lookup_elem(&reserved_ports, &port);
}

SEC("cgroup/sock_create")
int create(struct bpf_sock *sk)
{
    if (sk->type == SOCK_RAW)
        return 0;
    __sync_fetch_and_add(&created, 1);
    return 1;
}

SEC("cgroup/sock_release")
int release(struct bpf_sock *sk)
{
    __sync_fetch_and_add(&released, 1);
    return 1;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *sk)
{
    return bound(sk->src_port);
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *sk)
{
    return bound(sk->src_port);
}

char _license[] SEC("license") = "GPL";

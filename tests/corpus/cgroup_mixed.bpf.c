// SPDX-License-Identifier: Apache-2.0
//
// What libbpf loads by itself to find out about attach types, this has of its own: so the optional
// ones are not left out.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("cgroup/sock_create")
int created(struct bpf_sock *sk)
{
    return 1;
}

SEC("cgroup_skb/egress")
int out(struct __sk_buff *skb)
{
    return 1;
}

SEC("sockops")
int operations(struct bpf_sock_ops *ops)
{
    return 1;
}

SEC("xdp")
int packet(struct xdp_md *ctx)
{
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";

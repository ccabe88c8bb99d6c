// SPDX-License-Identifier: Apache-2.0
//
// Programs and a struct_ops map that are there for an application that asks for them.
#include "../consumer/tcp_congestion.h"

SEC("socket")
int loaded(struct __sk_buff *skb)
{
    return 1;
}

SEC("?xdp")
int left_out(struct xdp_md *ctx)
{
    return XDP_PASS;
}

SEC("struct_ops/ssthresh")
__u32 BPF_PROG(choice_ssthresh, struct sock *sk)
{
    return 2;
}

SEC("?.struct_ops")
struct tcp_congestion_ops choice = {
    .ssthresh = (void *)choice_ssthresh,
    .name = "obh_choice",
};

char _license[] SEC("license") = "GPL";

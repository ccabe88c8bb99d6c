// SPDX-License-Identifier: Apache-2.0
//
// struct_ops by a struct that has little in common with the kernel's: a flavour of its name, and
// members in another order, whose numbers are the kernel's all the same. Two maps share a program.
#include "../consumer/tcp_congestion.h"

struct tcp_congestion_ops___short {
    void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
    __u32 (*undo_cwnd)(struct sock *sk);
    __u32 (*ssthresh)(struct sock *sk);
    char name[16];
};

SEC("struct_ops/ssthresh")
__u32 BPF_PROG(short_ssthresh, struct sock *sk)
{
    return 2;
}

SEC("struct_ops/undo_cwnd")
__u32 BPF_PROG(short_undo_cwnd, struct sock *sk)
{
    return 2;
}

SEC("struct_ops/cong_avoid")
void BPF_PROG(short_cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC(".struct_ops")
struct tcp_congestion_ops___short one = {
    .ssthresh = (void *)short_ssthresh,
    .undo_cwnd = (void *)short_undo_cwnd,
    .cong_avoid = (void *)short_cong_avoid,
    .name = "obh_one",
};

SEC(".struct_ops.link")
struct tcp_congestion_ops___short two = {
    .ssthresh = (void *)short_ssthresh,
    .undo_cwnd = (void *)short_undo_cwnd,
    .cong_avoid = (void *)short_cong_avoid,
    .name = "obh_two",
};

char _license[] SEC("license") = "GPL";

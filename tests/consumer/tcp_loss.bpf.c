// SPDX-License-Identifier: Apache-2.0
//
// Profile struct-ops-tcp: a congestion control that goes by losses, as Reno and Cubic do.
#include "tcp_congestion.h"

struct private {
    __u64 started;
    __s32 lowest_rtt;
    __u32 losses;
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct private);
} privates SEC(".maps");

const volatile __u32 beta = 717;  // .rodata; of 1024
__u64 connections;                // .bss

extern void tcp_reno_cong_avoid(struct sock *sk, __u32 ack, __u32 acked) __ksym;
extern __u32 tcp_reno_undo_cwnd(struct sock *sk) __ksym;

SEC("struct_ops")
void BPF_PROG(loss_init, struct sock *sk)
{
    struct private *private =
        bpf_sk_storage_get(&privates, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (private)
        private->started = bpf_ktime_get_ns();
    __sync_fetch_and_add(&connections, 1);
}

SEC("struct_ops")
void BPF_PROG(loss_release, struct sock *sk)
{
    __sync_fetch_and_sub(&connections, 1);
}

SEC("struct_ops")
__u32 BPF_PROG(loss_ssthresh, struct sock *sk)
{
    __u32 window = ((struct tcp_sock *)sk)->snd_cwnd * beta / 1024;

    return window < 2 ? 2 : window;
}

SEC("struct_ops")
void BPF_PROG(loss_cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
    tcp_reno_cong_avoid(sk, ack, acked);
}

SEC("struct_ops")
void BPF_PROG(loss_set_state, struct sock *sk, __u8 new_state)
{
    struct private *private = bpf_sk_storage_get(&privates, sk, 0, 0);

    if (private && new_state == 4)  // TCP_CA_Loss
        private->losses += 1;
}

SEC("struct_ops")
void BPF_PROG(loss_cwnd_event, struct sock *sk, enum tcp_ca_event event)
{
    struct private *private = bpf_sk_storage_get(&privates, sk, 0, 0);

    if (private && event == CA_EVENT_TX_START)
        private->started = bpf_ktime_get_ns();
}

SEC("struct_ops")
void BPF_PROG(loss_pkts_acked, struct sock *sk, const struct ack_sample *sample)
{
    struct private *private = bpf_sk_storage_get(&privates, sk, 0, 0);
    __s32 rtt = sample->rtt_us;

    if (private && rtt > 0 && (!private->lowest_rtt || rtt < private->lowest_rtt))
        private->lowest_rtt = rtt;
}

SEC("struct_ops")
__u32 BPF_PROG(loss_undo_cwnd, struct sock *sk)
{
    return tcp_reno_undo_cwnd(sk);
}

SEC(".struct_ops")
struct tcp_congestion_ops loss = {
    .init = (void *)loss_init,
    .release = (void *)loss_release,
    .ssthresh = (void *)loss_ssthresh,
    .cong_avoid = (void *)loss_cong_avoid,
    .set_state = (void *)loss_set_state,
    .cwnd_event = (void *)loss_cwnd_event,
    .pkts_acked = (void *)loss_pkts_acked,
    .undo_cwnd = (void *)loss_undo_cwnd,
    .name = "obh_loss",
};

char _license[] SEC("license") = "GPL";

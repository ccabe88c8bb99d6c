// SPDX-License-Identifier: Apache-2.0
//
// Profile struct-ops-tcp: a congestion control that goes by the rate of delivery, as BBR does.
#include "tcp_congestion.h"

__u64 rounds;  // .bss

SEC("struct_ops")
void BPF_PROG(rate_cong_control, struct sock *sk, __u32 ack, int flag,
              const struct rate_sample *rs)
{
    struct tcp_sock *tp = (struct tcp_sock *)sk;

    if (rs->delivered > 0 && rs->interval_us > 0)
        tp->snd_cwnd = rs->delivered + 4;
}

SEC("struct_ops")
void BPF_PROG(rate_in_ack_event, struct sock *sk, __u32 flags)
{
    __sync_fetch_and_add(&rounds, 1);
}

SEC("struct_ops")
__u32 BPF_PROG(rate_min_tso_segs, struct sock *sk)
{
    return ((struct tcp_sock *)sk)->mss_cache < 1000 ? 1 : 2;
}

SEC("struct_ops")
__u32 BPF_PROG(rate_sndbuf_expand, struct sock *sk)
{
    return 3;
}

SEC("struct_ops")
__u32 BPF_PROG(rate_ssthresh, struct sock *sk)
{
    return ((struct tcp_sock *)sk)->snd_ssthresh;
}

SEC("struct_ops")
__u32 BPF_PROG(rate_undo_cwnd, struct sock *sk)
{
    return ((struct tcp_sock *)sk)->snd_cwnd;
}

SEC(".struct_ops.link")
struct tcp_congestion_ops rate = {
    .cong_control = (void *)rate_cong_control,
    .in_ack_event = (void *)rate_in_ack_event,
    .min_tso_segs = (void *)rate_min_tso_segs,
    .sndbuf_expand = (void *)rate_sndbuf_expand,
    .ssthresh = (void *)rate_ssthresh,
    .undo_cwnd = (void *)rate_undo_cwnd,
    .name = "obh_rate",
};

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// What the two congestion controls use of the kernel's own declarations. libbpf finds the members
// of tcp_congestion_ops and the offsets of the others by name, in the kernel's BTF.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

typedef _Bool bool;

struct sock {
    unsigned long sk_pacing_rate;
} __attribute__((preserve_access_index));

struct tcp_sock {
    __u32 snd_cwnd, snd_ssthresh, prior_cwnd, mss_cache, srtt_us;
} __attribute__((preserve_access_index));

struct ack_sample {
    __u32 pkts_acked;
    __s32 rtt_us;
} __attribute__((preserve_access_index));

struct rate_sample {
    __s32 delivered;
    long interval_us;
} __attribute__((preserve_access_index));

enum tcp_ca_event { CA_EVENT_TX_START };

struct tcp_congestion_ops {
    __u32 (*ssthresh)(struct sock *sk);
    void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
    void (*set_state)(struct sock *sk, __u8 new_state);
    void (*cwnd_event)(struct sock *sk, enum tcp_ca_event ev);
    void (*in_ack_event)(struct sock *sk, __u32 flags);
    void (*pkts_acked)(struct sock *sk, const struct ack_sample *sample);
    __u32 (*min_tso_segs)(struct sock *sk);
    void (*cong_control)(struct sock *sk, __u32 ack, int flag, const struct rate_sample *rs);
    __u32 (*undo_cwnd)(struct sock *sk);
    __u32 (*sndbuf_expand)(struct sock *sk);
    char name[16];
    void (*init)(struct sock *sk);
    void (*release)(struct sock *sk);
};

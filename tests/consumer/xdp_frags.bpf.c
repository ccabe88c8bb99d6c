// SPDX-License-Identifier: Apache-2.0
//
// Profile xdp: a program for packets in more than one buffer. libbpf always loads SEC("xdp.frags")
// with its own attach type, xdp, and not with 0.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

__u64 jumbo;  // .bss

SEC("xdp.frags")
int count_jumbo(struct xdp_md *ctx)
{
    if (bpf_xdp_get_buff_len(ctx) > 4096)
        __sync_fetch_and_add(&jumbo, 1);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";

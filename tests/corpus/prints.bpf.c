// SPDX-License-Identifier: Apache-2.0
//
// A network program that prints, which takes CAP_PERFMON.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int prints(struct xdp_md *ctx)
{
    bpf_printk("a packet");
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// The kernel's configuration, and what libbpf adds to it, one of which it takes a probe for.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

extern const int LINUX_KERNEL_VERSION __kconfig;
extern const _Bool LINUX_HAS_BPF_COOKIE __kconfig __weak;
extern const int CONFIG_HZ __kconfig __weak;

SEC("raw_tp")
int kconfig(void *ctx)
{
    return LINUX_HAS_BPF_COOKIE ? CONFIG_HZ : LINUX_KERNEL_VERSION;
}

char _license[] SEC("license") = "GPL";

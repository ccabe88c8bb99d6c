// SPDX-License-Identifier: Apache-2.0
//
// User space's own tracepoints, which attach by uprobe.multi or not at all.
#include <linux/bpf.h>
#include <linux/ptrace.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

typedef _Bool bool;

#include <bpf/usdt.bpf.h>

int calls;

SEC("usdt")
int BPF_USDT(called, int number)
{
    calls += number;
    return 0;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// Functions beside the program: a global one, a static one that calls a helper with a probe of its
// own, and one that a helper calls.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

__attribute__((noinline)) int doubled(int number)
{
    return number * 2;
}

static __attribute__((noinline)) long read(const void *from)
{
    long number = 0;

    bpf_probe_read_kernel(&number, sizeof(number), from);
    return number;
}

static int callback(__u32 index, void *context)
{
    return index > 5;
}

SEC("raw_tp/sys_enter")
int functions(struct bpf_raw_tracepoint_args *ctx)
{
    bpf_loop(10, callback, 0, 0);
    return doubled(read((void *)ctx->args[0]));
}

char _license[] SEC("license") = "GPL";

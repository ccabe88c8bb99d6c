// SPDX-License-Identifier: Apache-2.0
//
// The kernel's own example of a struct_ops, sleepable too.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct bpf_dummy_ops_state {
    int val;
};

struct bpf_dummy_ops {
    int (*test_1)(struct bpf_dummy_ops_state *state);
    int (*test_sleepable)(struct bpf_dummy_ops_state *state);
};

SEC("struct_ops/test_1")
int test_1(unsigned long long *ctx)
{
    return 0;
}

SEC("struct_ops.s/test_sleepable")
int test_sleepable(unsigned long long *ctx)
{
    return 0;
}

SEC(".struct_ops")
struct bpf_dummy_ops dummy = {
    .test_1 = (void *)test_1,
    .test_sleepable = (void *)test_sleepable,
};

char _license[] SEC("license") = "GPL";

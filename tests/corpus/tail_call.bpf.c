// SPDX-License-Identifier: Apache-2.0
//
// A prog_array, whose values are functions, and nothing to delegate.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("tc")
int target(struct __sk_buff *skb)
{
    return 0;
}

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __type(key, __u32);
    __uint(max_entries, 1);
    __array(values, int(void *));
} targets SEC(".maps") = {
    .values = {[0] = (void *)&target},
};

SEC("tc")
int caller(struct __sk_buff *skb)
{
    bpf_tail_call(skb, &targets, 0);
    return 0;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// A map that libbpf pins by its name, and one in a map in it.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct inner {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 16);
} filled SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __type(key, __u32);
    __uint(max_entries, 2);
    __array(values, struct inner);
} outer SEC(".maps") = {
    .values = {[1] = &filled},
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 2);
    __uint(pinning, LIBBPF_PIN_BY_NAME);
} obh_pinned SEC(".maps");

SEC("tcx/egress")
int counts(struct __sk_buff *skb)
{
    __u32 key = 0;
    __u64 *count = bpf_map_lookup_elem(&obh_pinned, &key);

    if (count)
        *count += 1;
    return bpf_map_lookup_elem(&outer, &key) != 0;
}

char _license[] SEC("license") = "GPL";

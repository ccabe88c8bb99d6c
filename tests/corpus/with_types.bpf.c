// SPDX-License-Identifier: Apache-2.0
//
// Maps that the kernel makes only with the types of their values: a lock and a timer in them.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct locked {
    struct bpf_spin_lock lock;
    int number;
};

struct timed {
    struct bpf_timer timer;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32);
    __type(value, struct locked);
    __uint(max_entries, 16);
} locks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, struct timed);
    __uint(max_entries, 16);
} timers SEC(".maps");

SEC("tc")
int with_types(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct locked *locked = bpf_map_lookup_elem(&locks, &key);

    if (locked) {
        bpf_spin_lock(&locked->lock);
        locked->number += 1;
        bpf_spin_unlock(&locked->lock);
    }
    return bpf_map_lookup_elem(&timers, &key) != 0;
}

char _license[] SEC("license") = "GPL";

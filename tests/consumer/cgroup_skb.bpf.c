// SPDX-License-Identifier: Apache-2.0
//
// Profile cgroup-network: accounting and a firewall for a cgroup's packets, in both directions.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct prefix {
    __u32 length;
    __be32 address;
};

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct prefix);
    __type(value, __u8);
    __uint(max_entries, 1024);
} allowed SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 2);
} bytes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} refused SEC(".maps");

const volatile int enforce = 1;  // .rodata

static __always_inline int look(struct __sk_buff *skb, __u32 direction, __u32 offset)
{
    struct prefix prefix = {.length = 32};
    __u64 *count = bpf_map_lookup_elem(&bytes, &direction);

    if (count)
        *count += skb->len;
    if (skb->protocol != bpf_htons(ETH_P_IP))
        return 1;
    if (bpf_skb_load_bytes(skb, offset, &prefix.address, sizeof(prefix.address)))
        return 0;
    if (bpf_map_lookup_elem(&allowed, &prefix))
        return 1;
    bpf_ringbuf_output(&refused, &prefix, sizeof(prefix), 0);
    return !enforce;
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
    return look(skb, 0, offsetof(struct iphdr, saddr));
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
    return look(skb, 1, offsetof(struct iphdr, daddr));
}

char _license[] SEC("license") = "GPL";

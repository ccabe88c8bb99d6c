// SPDX-License-Identifier: Apache-2.0
//
// Profile tc: a classifier for clsact, by netlink, as it was done before tcx. Marks by prefix,
// and tail calls by protocol.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

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
    __type(value, __u32);
    __uint(max_entries, 1024);
} marks SEC(".maps");

const volatile __u32 default_mark = 7;  // .rodata

SEC("tc")
int ipv4(struct __sk_buff *skb)
{
    struct prefix prefix = {.length = 32};
    __u32 *mark;

    if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &prefix.address, 4))
        return TC_ACT_SHOT;
    mark = bpf_map_lookup_elem(&marks, &prefix);
    skb->mark = mark ? *mark : default_mark;
    return TC_ACT_OK;
}

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __type(key, __u32);
    __uint(max_entries, 1);
    __array(values, int(void *));
} protocols SEC(".maps") = {
    .values = {[0] = (void *)&ipv4},
};

SEC("tc")
int classify(struct __sk_buff *skb)
{
    if (skb->protocol == bpf_htons(ETH_P_IP))
        bpf_tail_call(skb, &protocols, 0);
    return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// Profile tc: both directions of tcx. A flow table that the way out fills and the way in consults,
// counters, and events for what comes unasked.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { NEXT = -1, PASS = 0, DROP = 2 };  // enum tcx_action_base, newer than Debian 12's header

struct pair {
    __be32 inside, outside;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct pair);
    __type(value, __u64);
    __uint(max_entries, 1024);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __be32);
    __type(value, __u8);
    __uint(max_entries, 64);
} trusted SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 2);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} unasked SEC(".maps");

int enforce = 1;  // .data

static __always_inline void count(__u32 direction)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &direction);

    if (counter)
        *counter += 1;
}

static __always_inline int addresses(struct __sk_buff *skb, __be32 *from, __be32 *to)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct iphdr *ip = data + ETH_HLEN;

    if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end)
        return 0;
    *from = ip->saddr;
    *to = ip->daddr;
    return 1;
}

SEC("tcx/egress")
int way_out(struct __sk_buff *skb)
{
    __u64 now = bpf_ktime_get_ns();
    struct pair pair = {};

    count(0);
    if (addresses(skb, &pair.inside, &pair.outside))
        bpf_map_update_elem(&flows, &pair, &now, BPF_ANY);
    return NEXT;
}

SEC("tcx/ingress")
int way_in(struct __sk_buff *skb)
{
    struct pair pair = {};

    count(1);
    if (!addresses(skb, &pair.outside, &pair.inside))
        return NEXT;
    if (bpf_map_lookup_elem(&flows, &pair) || bpf_map_lookup_elem(&trusted, &pair.outside))
        return NEXT;
    bpf_ringbuf_output(&unasked, &pair, sizeof(pair), 0);
    return enforce ? DROP : PASS;
}

char _license[] SEC("license") = "GPL";

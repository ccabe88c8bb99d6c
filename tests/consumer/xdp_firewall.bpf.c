// SPDX-License-Identifier: Apache-2.0
//
// Profile xdp: a packet filter. Prefixes that are blocked, ports that are open, a rate for each
// source, counters by verdict, events for what was dropped, and tail calls to the parsers.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

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
} blocked SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __be16);
    __type(value, __u8);
    __uint(max_entries, 64);
} open_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, __be32);
    __type(value, __u64);
    __uint(max_entries, 1024);
} packets_by_source SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, XDP_REDIRECT + 1);
} verdicts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __type(key, __be16);
    __type(value, __u64);
    __uint(max_entries, 64);
} packets_by_port SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} drops SEC(".maps");

const volatile __u64 limit = 1000;  // .rodata
__u64 dropped;                      // .bss

static __always_inline int verdict(__u32 action)
{
    __u64 *count = bpf_map_lookup_elem(&verdicts, &action);

    if (count)
        *count += 1;
    return action;
}

static __always_inline int drop(__be32 source)
{
    __sync_fetch_and_add(&dropped, 1);
    bpf_ringbuf_output(&drops, &source, sizeof(source), 0);
    return verdict(XDP_DROP);
}

SEC("xdp")
int udp_ports(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct iphdr *ip = data + sizeof(struct ethhdr);
    struct udphdr *udp = (void *)(ip + 1);
    __u64 one = 1, *count;
    __be16 port;

    if ((void *)(udp + 1) > end)
        return verdict(XDP_ABORTED);
    port = udp->dest;
    if (!bpf_map_lookup_elem(&open_ports, &port))
        return drop(ip->saddr);
    count = bpf_map_lookup_elem(&packets_by_port, &port);
    if (count)
        *count += 1;
    else
        bpf_map_update_elem(&packets_by_port, &port, &one, BPF_ANY);
    return verdict(XDP_PASS);
}

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __type(key, __u32);
    __uint(max_entries, 256);
    __array(values, int(void *));
} parsers SEC(".maps") = {
    .values = {[IPPROTO_UDP] = (void *)&udp_ports},
};

SEC("xdp")
int filter(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    struct prefix prefix = {.length = 32};
    __u64 one = 1, *count;

    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
        return verdict(XDP_PASS);
    prefix.address = ip->saddr;
    if (bpf_map_lookup_elem(&blocked, &prefix))
        return drop(prefix.address);
    count = bpf_map_lookup_elem(&packets_by_source, &prefix.address);
    if (!count)
        bpf_map_update_elem(&packets_by_source, &prefix.address, &one, BPF_ANY);
    else if (__sync_fetch_and_add(count, 1) > limit)
        return drop(prefix.address);
    bpf_tail_call(ctx, &parsers, ip->protocol);
    return verdict(XDP_PASS);
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// Profile socket-filter: what a traffic monitor attaches to its own packet socket (SO_ATTACH_BPF).
// Bytes by protocol and by flow, and an event for every TCP segment with SYN.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow {
    __be32 saddr, daddr;
    __be16 sport, dport;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 256);
} bytes_by_protocol SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} packets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __be16);
    __type(value, __u8);
    __uint(max_entries, 64);
} watched_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct flow);
    __type(value, __u64);
    __uint(max_entries, 1024);
} bytes_by_flow SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} connections SEC(".maps");

const volatile __u32 snap_length = 96;  // .rodata
__u32 verdict_all = 0;                  // .bss
__u64 seen = 1;                         // .data

SEC("socket")
int monitor(struct __sk_buff *skb)
{
    struct flow flow = {};
    __u32 zero = 0, protocol;
    __u64 length = skb->len, *count;
    __u8 byte, flags;

    count = bpf_map_lookup_elem(&packets, &zero);
    if (count)
        *count += 1;
    if (skb->protocol != bpf_htons(ETH_P_IP))
        return verdict_all;
    if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &byte, 1))
        return 0;
    protocol = byte;
    count = bpf_map_lookup_elem(&bytes_by_protocol, &protocol);
    if (count)
        __sync_fetch_and_add(count, length);
    if (protocol != IPPROTO_TCP)
        return snap_length;

    // As in most such filters, an IP header without options.
    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &flow.saddr, 8);
    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &flow.sport, 4);
    if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr) + 13, &flags, 1))
        return 0;
    count = bpf_map_lookup_elem(&bytes_by_flow, &flow);
    if (count)
        __sync_fetch_and_add(count, length);
    else
        bpf_map_update_elem(&bytes_by_flow, &flow, &length, BPF_ANY);
    if (flags & 2 && bpf_map_lookup_elem(&watched_ports, &flow.dport))
        bpf_ringbuf_output(&connections, &flow, sizeof(flow), 0);
    __sync_fetch_and_add(&seen, 1);
    return snap_length;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
//
// Profile xdp: packets to other devices, other CPUs and AF_XDP sockets, with the programs that run
// on the far side of a devmap and a cpumap.
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __type(key, __u32);
    __type(value, struct bpf_devmap_val);
    __uint(max_entries, 16);
} devices SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
    __type(key, __u32);
    __type(value, struct bpf_devmap_val);
    __uint(max_entries, 16);
} flooded SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_CPUMAP);
    __type(key, __u32);
    __type(value, struct bpf_cpumap_val);
    __uint(max_entries, 16);
} cpus SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 16);
} sockets SEC(".maps");

__u32 out, cpu;  // .bss
__u64 sent;

SEC("xdp")
int to_device(struct xdp_md *ctx)
{
    return bpf_redirect_map(&devices, out, XDP_PASS);
}

SEC("xdp")
int to_all(struct xdp_md *ctx)
{
    return bpf_redirect_map(&flooded, 0, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
}

SEC("xdp")
int to_cpu(struct xdp_md *ctx)
{
    return bpf_redirect_map(&cpus, cpu, XDP_PASS);
}

SEC("xdp")
int to_socket(struct xdp_md *ctx)
{
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp/devmap")
int at_device(struct xdp_md *ctx)
{
    __sync_fetch_and_add(&sent, ctx->egress_ifindex != ctx->ingress_ifindex);
    return XDP_PASS;
}

SEC("xdp/cpumap")
int at_cpu(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

    return data + ETH_HLEN > end ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";

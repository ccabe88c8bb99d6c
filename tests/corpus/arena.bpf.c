// SPDX-License-Identifier: Apache-2.0
//
// Memory that is shared with user space. What compilers before clang 19 can't do with it, an
// access, isn't needed to have it.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, 33);  // BPF_MAP_TYPE_ARENA, newer than Debian 12's header
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 4);
} arena SEC(".maps");

extern void *bpf_arena_alloc_pages(void *map, void *address, __u32 pages, int node, __u64 flags)
    __ksym;

SEC("syscall")
int allocate(void *ctx)
{
    return bpf_arena_alloc_pages(&arena, 0, 1, -1, 0) != 0;
}

char _license[] SEC("license") = "GPL";

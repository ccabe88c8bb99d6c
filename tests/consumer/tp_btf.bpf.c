// SPDX-License-Identifier: Apache-2.0
//
// Profile tracing: tracepoints with typed arguments. Which process started which.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct task_struct {
    int pid, tgid;
    struct task_struct *real_parent;
    char comm[16];
} __attribute__((preserve_access_index));

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u64);
} started SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __type(key, int);
    __type(value, __u64);
    __uint(max_entries, 1024);
} children SEC(".maps");

__u64 longest;  // .bss

SEC("tp_btf/task_newtask")
int BPF_PROG(born, struct task_struct *task, __u64 flags)
{
    __u64 one = 1, *count, *start;
    int parent = task->real_parent->tgid;

    start = bpf_task_storage_get(&started, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (start)
        *start = bpf_ktime_get_ns();
    count = bpf_map_lookup_elem(&children, &parent);
    if (count)
        *count += 1;
    else
        bpf_map_update_elem(&children, &parent, &one, BPF_ANY);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(died, struct task_struct *task)
{
    __u64 *start = bpf_task_storage_get(&started, task, 0, 0);

    if (start && bpf_ktime_get_ns() - *start > longest)
        longest = bpf_ktime_get_ns() - *start;
    return 0;
}

char _license[] SEC("license") = "GPL";

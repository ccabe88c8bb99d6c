// SPDX-License-Identifier: Apache-2.0
//
// Profile tracing: iterators, which print the kernel's tasks and BPF maps as files would.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct seq_file;
struct bpf_iter_meta {
    struct seq_file *seq;
    __u64 session_id, seq_num;
} __attribute__((preserve_access_index));

struct task_struct {
    int pid, tgid;
    char comm[16];
} __attribute__((preserve_access_index));

struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
} __attribute__((preserve_access_index));

struct bpf_map {
    __u32 id, max_entries;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
} __attribute__((preserve_access_index));

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;

    if (task)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d %s\n", task->tgid, task->pid, task->comm);
    return 0;
}

SEC("iter/bpf_map")
int maps(struct bpf_iter__bpf_map *ctx)
{
    struct bpf_map *map = ctx->map;

    if (map)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%u %u\n", map->id, map->max_entries);
    return 0;
}

char _license[] SEC("license") = "GPL";

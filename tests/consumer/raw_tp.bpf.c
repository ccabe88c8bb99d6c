// SPDX-License-Identifier: Apache-2.0
//
// Profile tracing: raw tracepoints. How long threads were off the CPU, by process, with stacks,
// and which system calls they make.
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

// What is used of the kernel's own; libbpf finds the offsets in its BTF.
struct task_struct {
    int pid, tgid;
    char comm[16];
} __attribute__((preserve_access_index));

struct slept {
    __u64 nanoseconds;
    int stack;
    char comm[16];
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, int);
    __type(value, __u64);
    __uint(max_entries, 1024);
} since SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_STACK_TRACE);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, 16 * sizeof(__u64));
    __uint(max_entries, 64);
} stacks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32);
    __type(value, __u8);
    __uint(max_entries, 64);
} traced SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 512);
} system_calls SEC(".maps");

const volatile __u64 shortest = 1000000;  // .rodata

SEC("raw_tp/sched_switch")
int switched(struct bpf_raw_tracepoint_args *ctx)
{
    struct task_struct *previous = (void *)ctx->args[1], *next = (void *)ctx->args[2];
    __u64 now = bpf_ktime_get_ns(), *start;
    struct slept *event;
    int pid = BPF_CORE_READ(previous, pid);

    bpf_map_update_elem(&since, &pid, &now, BPF_ANY);
    pid = BPF_CORE_READ(next, pid);
    start = bpf_map_lookup_elem(&since, &pid);
    if (!start || now - *start < shortest)
        return 0;
    event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return 0;
    event->nanoseconds = now - *start;
    event->stack = bpf_get_stackid(ctx, &stacks, 0);
    BPF_CORE_READ_STR_INTO(&event->comm, next, comm);
    bpf_ringbuf_submit(event, 0);
    return 0;
}

SEC("raw_tp/sys_enter")
int entered(struct bpf_raw_tracepoint_args *ctx)
{
    __u32 process = bpf_get_current_pid_tgid() >> 32, number = ctx->args[1];
    __u64 *count;

    if (!bpf_map_lookup_elem(&traced, &process))
        return 0;
    count = bpf_map_lookup_elem(&system_calls, &number);
    if (count)
        *count += 1;
    return 0;
}

char _license[] SEC("license") = "GPL";

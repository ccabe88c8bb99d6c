// Looks a key of a map up COUNT times, and prints the nanoseconds that this took: calls of bpf(2) by
// libc's syscall(), of which none is refused.
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long bpf(int cmd, union bpf_attr *attr)
{
    return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

int main(int argc, char **argv)
{
    uint32_t key = 0, value;
    struct timespec start, end;
    union bpf_attr attr;

    if (argc != 2)
        return 2;
    memset(&attr, 0, sizeof(attr));
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = attr.value_size = sizeof(key);
    attr.max_entries = 1;
    long map = bpf(BPF_MAP_CREATE, &attr);
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = (uint32_t)map;
    attr.key = (uintptr_t)&key;
    attr.value = (uintptr_t)&value;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long count = atol(argv[1]); count > 0; count--)
        if (bpf(BPF_MAP_LOOKUP_ELEM, &attr)) {
            perror("BPF_MAP_LOOKUP_ELEM");
            return 1;
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%ld\n", (end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec);
    return 0;
}

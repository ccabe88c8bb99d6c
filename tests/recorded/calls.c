// SPDX-License-Identifier: Apache-2.0
//
// What the tests record: a program whose calls of bpf(2) are known, in the ways that programs make
// them.  It makes array maps with the token of /sys/fs/bpf, and prints "made N failed N" for them.
//
//   calls map N                 N maps, one after the other
//   calls threads T N           N maps in each of T threads
//   calls fork N                N maps here and N in a child
//   calls exec N                N maps, then `calls map N` in the same process
//   calls setuid UID N          N maps after this process has become UID, with its capabilities
//   calls signals N             N maps while a timer sends signals, whose handler restarts calls
//   calls hostile               calls with addresses that lead nowhere; their errnos
//   calls race N                N maps while another thread changes their type all the time
//   calls until ERRNO           maps until one fails, which has to be with ERRNO
//   calls own                   a cgroup_sock program that returns 0, as libbpf's probe has it
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAP_CREATE = 0, PROG_LOAD = 5, TOKEN_CREATE = 36, HASH = 1, ARRAY = 2 };
#define F_TOKEN_FD (1U << 16)

// The beginning of the union, at its offsets: ABI.
union attr {
    struct {
        uint32_t type, key_size, value_size, max_entries, flags, inner_map_fd, numa_node;
        char name[16];
        uint32_t rest[8];
        int32_t token_fd;
    } map;
    struct {
        uint32_t type, insn_cnt;
        uint64_t insns, license;
        uint32_t log_level, log_size;
        uint64_t log_buf;
        uint32_t kern_version, flags;
        char name[16];
        uint32_t ifindex, expected_attach_type;
        uint32_t rest[18];
        int32_t token_fd;
    } prog;
    struct {
        uint32_t flags, bpffs_fd;
    } token;
    char bytes[160];
};
_Static_assert(__builtin_offsetof(union attr, map.token_fd) == 76, "map_token_fd");
_Static_assert(__builtin_offsetof(union attr, prog.expected_attach_type) == 68, "attach type");
_Static_assert(__builtin_offsetof(union attr, prog.token_fd) == 144, "prog_token_fd");

static int token;
static volatile int done;

static long bpf(long command, const void *attr, unsigned long size)
{
    return syscall(SYS_bpf, command, attr, size);
}

static void make_token(void)
{
    union attr attr = {0};
    int directory = open("/sys/fs/bpf", O_DIRECTORY | O_RDONLY);
    attr.token.bpffs_fd = directory;
    token = bpf(TOKEN_CREATE, &attr, 8);
    close(directory);
    if (token < 0) {
        perror("no token");
        exit(1);
    }
}

static void describe(union attr *attr, uint32_t type)
{
    memset(attr, 0, sizeof *attr);
    attr->map.type = type;
    attr->map.key_size = attr->map.value_size = 4;
    attr->map.max_entries = 1;
    attr->map.flags = F_TOKEN_FD;
    attr->map.token_fd = token;
}

static long make(union attr *attr)
{
    long fd = bpf(MAP_CREATE, attr, 80);
    if (fd >= 0)
        close(fd);
    return fd;
}

static long make_all(long count)
{
    union attr attr;
    long made = 0;
    describe(&attr, ARRAY);
    for (long i = 0; i < count; i++)
        made += make(&attr) >= 0;
    return made;
}

static void say(long count, long made)
{
    printf("made %ld failed %ld\n", made, count - made);
    fflush(stdout);
}

static void *thread(void *count)
{
    return (void *)make_all((long)count);
}

static void threads(long count, long each)
{
    pthread_t all[1024];
    long made = 0;
    for (long i = 0; i < count; i++)
        pthread_create(&all[i], NULL, thread, (void *)each);
    for (long i = 0; i < count; i++) {
        void *its;
        pthread_join(all[i], &its);
        made += (long)its;
    }
    say(count * each, made);
}

static void become(int uid)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    prctl(PR_SET_KEEPCAPS, 1);
    if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
        perror("setresuid");
    syscall(SYS_capget, &header, data);
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    syscall(SYS_capset, &header, data);
}

static void handle(int number)
{
    (void)number;
}

static void signals(long count)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 300}, {0, 300}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    say(count, make_all(count));
}

static void *flip(void *attr)
{
    volatile uint32_t *type = &((union attr *)attr)->map.type;
    while (!done)
        *type = *type == HASH ? ARRAY : HASH;
    return NULL;
}

static void race(long count)
{
    union attr attr;
    pthread_t other;
    long made = 0;
    describe(&attr, ARRAY);
    pthread_create(&other, NULL, flip, &attr);
    for (long i = 0; i < count; i++)
        made += make(&attr) >= 0;
    done = 1;
    pthread_join(other, NULL);
    say(count, made);
}

static void report(const char *what, long result)
{
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
}

static void hostile(void)
{
    union attr attr = {0};
    report("null", bpf(MAP_CREATE, NULL, 80));
    report("one", bpf(MAP_CREATE, (void *)1, 80));
    report("kernel", bpf(MAP_CREATE, (void *)-4096L, 80));
    report("noncanonical", bpf(MAP_CREATE, (void *)(1L << 62), 80));
    report("huge", bpf(MAP_CREATE, &attr, 1UL << 31));
    report("nothing", bpf(MAP_CREATE, &attr, 0));
    report("command", bpf(-1, &attr, sizeof attr));
    report("large", bpf(0x7fff, &attr, sizeof attr));
    attr.prog.type = 1;
    attr.prog.insn_cnt = 0xffffffff;
    attr.prog.insns = -1;
    report("instructions", bpf(PROG_LOAD, &attr, sizeof attr));
}

static void until(const char *wanted)
{
    union attr attr;
    describe(&attr, ARRAY);
    say(0, 0);  // Whoever waits for us to begin reads this.
    while (make(&attr) >= 0)
        ;
    printf("%s\n", strerrorname_np(errno));
    exit(strcmp(strerrorname_np(errno), wanted) != 0);
}

static void own(void)
{
    static const uint64_t instructions[] = {0x00000000000000b7, 0x0000000000000095};
    union attr attr = {0};
    attr.prog.type = 9;  // BPF_PROG_TYPE_CGROUP_SOCK
    attr.prog.expected_attach_type = 2;  // BPF_CGROUP_INET_SOCK_CREATE
    attr.prog.insn_cnt = 2;
    attr.prog.insns = (uintptr_t)instructions;
    attr.prog.license = (uintptr_t) "GPL";
    attr.prog.flags = F_TOKEN_FD;
    attr.prog.token_fd = token;
    say(1, bpf(PROG_LOAD, &attr, 148) >= 0);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    long count = argc > 2 ? atol(argv[2]) : 0, more = argc > 3 ? atol(argv[3]) : 0;
    if (!strcmp(how, "hostile")) {
        hostile();
        return 0;
    }
    make_token();
    if (!strcmp(how, "map")) {
        say(count, make_all(count));
    } else if (!strcmp(how, "threads")) {
        threads(count, more);
    } else if (!strcmp(how, "fork")) {
        say(count, make_all(count));
        if (fork() == 0) {
            say(count, make_all(count));
            return 0;
        }
        wait(NULL);
    } else if (!strcmp(how, "exec")) {
        say(count, make_all(count));
        execl(argv[0], argv[0], "map", argv[2], NULL);
    } else if (!strcmp(how, "setuid")) {
        become(count);
        say(more, make_all(more));
    } else if (!strcmp(how, "signals")) {
        signals(count);
    } else if (!strcmp(how, "race")) {
        race(count);
    } else if (!strcmp(how, "until")) {
        until(argv[2]);
    } else if (!strcmp(how, "own")) {
        own();
    } else {
        return 2;
    }
    return 0;
}

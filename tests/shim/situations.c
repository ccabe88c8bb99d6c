// What programs do around a call of bpf(2) that is refused: each situation prints what became of it.
// Compiled with the headers of a kernel that may know no tokens, as the programs themselves are.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <unistd.h>

static int map_attr(union bpf_attr *attr)
{
    memset(attr, 0, sizeof(*attr));
    attr->map_type = BPF_MAP_TYPE_ARRAY;
    attr->key_size = attr->value_size = 4;
    attr->max_entries = 1;
    return (int)offsetof(union bpf_attr, map_flags) + 4;
}

static long create(void)
{
    union bpf_attr attr;
    int size = map_attr(&attr);

    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, size);
}

static const char *outcome(long result)
{
    static char number[16];

    if (result >= 0)
        return "ok";
    if (errno == EPERM)
        return "EPERM";
    snprintf(number, sizeof(number), "errno=%d", errno);
    return number;
}

static void say(const char *what, long result)
{
    printf("%s %s\n", what, outcome(result));
}

// One map by each size of the union that was ever passed, all numbers as they are without tokens.
static void numbers(void)
{
    union bpf_attr attr;
    int lowest = dup(0);

    close(lowest);
    for (unsigned size = (unsigned)map_attr(&attr); size <= sizeof(attr); size += 4) {
        union bpf_attr before = attr;
        errno = 77;
        long fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, size);
        if (fd < 0 ? errno != EPERM : errno != 77 || fd != lowest)
            printf("size %u: fd %ld, errno %d, lowest %d\n", size, fd, errno, lowest);
        if (fd >= 0 && fcntl((int)fd, F_GETFD) != FD_CLOEXEC)
            printf("size %u: no close-on-exec\n", size);
        if (memcmp(&attr, &before, sizeof(attr)))
            printf("size %u: the union has changed\n", size);
        if (fd >= 0)
            close((int)fd);
    }
    int after = dup(0);
    say("numbers", after == lowest ? create() : -1);
}

static void closed(void)
{
    // As daemons do, and so at its start each program of Python's subprocess module.
    syscall(SYS_close_range, 3, ~0U, 0);
    say("first", create());
    syscall(SYS_close_range, 3, ~0U, 0);
    for (int fd = 3; fd < 1024; fd++)
        dup2(0, fd);
    say("full", create());
    syscall(SYS_close_range, 3, ~0U, 0);
    say("again", create());
}

static void at_limit(void)
{
    // No file descriptor is left, then one, and then two, as many as a token takes.
    int fds[64], count = 0;

    setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 64});
    while ((fds[count] = dup(0)) >= 0)
        count++;
    say("none", create());
    close(fds[count - 1]);
    say("one", create());
    close(fds[count - 2]);
    say("two", create());
}

static atomic_int stop;

static void *creates(void *argument)
{
    atomic_int *failed = argument;

    while (!stop) {
        long fd = create();
        if (fd < 0)
            ++*failed;
        else
            close((int)fd);
    }
    return NULL;
}

// Threads in the middle of it, and children that do the same and have to end.
static void forks(void)
{
    pthread_t threads[3];
    atomic_int failed = 0;
    int children = 0;

    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, creates, &failed);
    for (int i = 0; i < 60; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(create() < 0 ? 1 : 0);
        int status;
        waitpid(pid, &status, 0);
        children += status != 0;
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("forks %s\n", failed || children ? "failed" : "ok");
}

static void vforks(void)
{
    pid_t pid = vfork();

    if (pid == 0)
        _exit(create() < 0 ? errno : 0);
    int status;
    waitpid(pid, &status, 0);
    errno = WEXITSTATUS(status);
    say("vfork", errno ? -1 : 0);
}

static volatile long handled;

static void handler(int number)
{
    (void)number;
    handled = create();
}

static void handlers(void)
{
    // A small stack of its own.
    stack_t stack = {.ss_sp = malloc(MINSIGSTKSZ + 4096), .ss_size = MINSIGSTKSZ + 4096};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};

    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    say("handler", handled);
}

// A filter that says EPERM to bpf(2), whose arguments nobody has looked at then.
static void filtered(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 36, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    for (int cmd = 0; cmd < 40; cmd++)
        for (int size = 0; size < 300; size += 12)
            if (syscall(SYS_bpf, cmd, NULL, size) != -1 ||
                syscall(SYS_bpf, cmd, (void *)-4096L, size) != -1)
                printf("%d succeeds\n", cmd);
    say("filtered", -1);
}

// The union at the end of a page that nothing follows, in memory that can't be written.
static void at_the_end(void)
{
    union bpf_attr attr;
    int size = map_attr(&attr);
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    munmap(pages + 4096, 4096);
    char *place = memcpy(pages + 4096 - size, &attr, (size_t)size);
    mprotect(pages, 4096, PROT_READ);
    say("end", syscall(SYS_bpf, BPF_MAP_CREATE, place, size));
}

// The kernel says how long a log would have been, where the union has a place for that.
static void logs(void)
{
    static const struct bpf_insn exit_without_r0 = {.code = BPF_JMP | BPF_EXIT};
    static char log[4096];
    char attr[152];

    for (unsigned size = 128; size <= 152; size += 4) {
        memset(attr, 0, sizeof(attr));
        *(uint32_t *)(attr + 0) = BPF_PROG_TYPE_SOCKET_FILTER;
        *(uint32_t *)(attr + 4) = 1;
        *(uint64_t *)(attr + 8) = (uintptr_t)&exit_without_r0;
        *(uint64_t *)(attr + 16) = (uintptr_t) "GPL";
        *(uint32_t *)(attr + 24) = 1;
        *(uint32_t *)(attr + 28) = sizeof(log);
        *(uint64_t *)(attr + 32) = (uintptr_t)log;
        char before[sizeof(attr)];
        memcpy(before, attr, sizeof(attr));
        log[0] = 0;
        long result = syscall(SYS_bpf, BPF_PROG_LOAD, attr, size);
        uint32_t said = *(uint32_t *)(attr + 140);
        memcpy(attr + 140, before + 140, 4);
        printf("%u %s %s %s %s\n", size, outcome(result),
               strstr(log, "R0 !read_ok") ? "log" : "no-log",
               said == strlen(log) + 1 && said > 1 ? "length" : said ? "wrong" : "none",
               memcmp(attr, before, sizeof(attr)) ? "changed" : "unchanged");
    }
}

// As with setproctitle(3): the environment is gone, and its place has something else.
static void titled(char **environment)
{
    char *first = environment[0], *last = first;

    for (char **one = environment; *one; one++)
        last = *one + strlen(*one);
    memset(first, 'x', (size_t)(last - first));
    environment[0] = NULL;
    clearenv();
    say("titled", create());
}

int main(int argc, char **argv, char **environment)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
        {"numbers", numbers}, {"closed", closed},     {"at_limit", at_limit}, {"forks", forks},
        {"vforks", vforks},   {"handlers", handlers}, {"filtered", filtered}, {"logs", logs},
        {"at_the_end", at_the_end},
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "create"))
            say("create", create());
        if (!strcmp(argv[i], "titled"))
            titled(environment);
        for (size_t n = 0; n < sizeof(all) / sizeof(*all); n++)
            if (!strcmp(argv[i], all[n].name))
                all[n].run();
    }
    return 0;
}

/* libbpf-token-shim.so: makes BPF tokens for programs that make none themselves.
 *
 * A container that preloads this library (LD_PRELOAD) has its syscall() instead of libc's. A call of
 * bpf(2) that takes a token, came without one and was refused with EPERM is made once more, with a
 * token from the bpffs where libbpf looks for one: LIBBPF_BPF_TOKEN_PATH, or /sys/fs/bpf. All other
 * calls go to the kernel unchanged, and have its result. The program gets nothing that it couldn't
 * get by making a token itself.
 *
 * The library uses nothing of libc but the place of errno, so that one file works with every libc:
 * there is no allocation, no lock, and no state but what start() has found in the environment. That
 * makes it safe in threads, after fork() and vfork(), and in signal handlers. A token is made for
 * each call and closed after it, so a program that closes or replaces all of its file descriptors
 * has never closed or replaced ours.
 */
#include "machine.h"

/* Linux: include/uapi/linux/bpf.h. The offsets are those in union bpf_attr, which are ABI. Tokens
 * are in Linux 6.9 and later, and BTF_GET_FD_BY_ID takes one in Linux 6.15 and later
 * (0de445d18e0b). */
enum { BTF_GET_FD_BY_ID = 19, TOKEN_CREATE = 36 };
/* A flag in the command since Linux 7.0: another union follows, which is passed on as it is. */
enum { COMMON_ATTRS = 1 << 16 };
enum { F_TOKEN_FD = 1 << 16 };
/* No kernel has a longer union bpf_attr; a call with a longer one isn't repeated. */
enum { LONGEST = 256 };
/* A shorter union has none of the fields that are used here. */
enum { SHORTEST = 8 };
/* Linux: include/uapi/asm-generic/errno-base.h and fcntl.h */
enum { EPERM = 1, EINVAL = 22 };
enum { AT_FDCWD = -100, O_CLOEXEC = 02000000, F_DUPFD_CLOEXEC = 1030 };
enum { PROT_READ_WRITE = 3, MAP_PRIVATE_ANONYMOUS = 0x22 };
enum { AT_SECURE = 23 };
/* Where the token is while it is used, if the limit of open files is above it. So a map or
 * program still gets the lowest fd that is free, as it would without the shim. */
enum { HIGH = 512 };
enum { SIGSET_SIZE = 8, STDERR = 2 };

typedef unsigned int u32;
typedef unsigned char u8;

/* A command that takes a token: where its flags and its token are, and the size of what the kernel
 * writes into the union, if it does (log_true_size). */
struct command {
    char name[20];
    u8 number, flags, token, written;
};

static const struct command COMMANDS[] = {
    {"MAP_CREATE", 0, 16, 76, 0},
    {"PROG_LOAD", 5, 44, 144, 140},
    {"BTF_LOAD", 18, 32, 36, 28},
    {"BTF_GET_FD_BY_ID", BTF_GET_FD_BY_ID, 8, 12, 0},
};

struct iovec {
    const char *base;
    unsigned long length;
};

extern int *__errno_location(void);
extern unsigned long getauxval(unsigned long type) __attribute__((weak));
extern const char *gnu_get_libc_version(void) __attribute__((weak));
extern char **environ __attribute__((weak));

/* The bpffs, or NULL if nothing is to be done. Only start() writes this and `logs`. */
static const char *bpffs;
static char logs;

static unsigned long length(const char *text)
{
    unsigned long count = 0;

    while (text[count])
        count++;
    return count;
}

static void copy_bytes(u8 *to, const u8 *from, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++)
        /* volatile keeps the compiler from calling memcpy(), which would be somebody else's. */
        *(volatile u8 *)&to[i] = from[i];
}

/* The value of the variable that begins with `name` ("NAME="), or NULL. */
static const char *variable(char **list, const char *name)
{
    for (; list && *list; list++) {
        unsigned long i = 0;

        while (name[i] && (*list)[i] == name[i])
            i++;
        if (!name[i])
            return *list + i;
    }
    return 0;
}

/* Reads the environment once, because later it can be gone: nginx and others write their title over
 * it. glibc hands it over, and may not have set `environ` yet when this runs; musl has set it, and
 * hands nothing over. */
__attribute__((constructor)) static void start(int argc, char **argv, char **envp)
{
    char **list = gnu_get_libc_version ? envp : &environ ? environ : 0;
    const char *path;
    unsigned long size;
    long kept;

    (void)argc, (void)argv;
    /* A program with more privilege than who runs it takes no orders from the environment. */
    if (!getauxval || getauxval(AT_SECURE))
        return;
    path = variable(list, "LIBBPF_BPF_TOKEN_PATH=");
    if (!path) {
        bpffs = "/sys/fs/bpf";
    } else if (*path) { /* An empty path is libbpf's way to say that no token is wanted. */
        size = length(path) + 1;
        kept = kernel(NR_MMAP, 0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
        if (kept < 0 && kept > -4096)
            return;
        copy_bytes((u8 *)kept, (const u8 *)path, size);
        bpffs = (const char *)kept;
    }
    path = variable(list, "BPF_TOKEN_SHIM_LOG=");
    logs = path && *path;
}

/* Sets errno, and returns what a call that failed returns. */
long failed(long result)
{
    *__errno_location() = (int)-result;
    return -1;
}

/* What became of a call, on standard error: as a number, or as an errno with its sign. */
static void log_result(const struct command *command, const char *what, long result)
{
    char digits[24];
    char *number = digits + sizeof(digits);
    unsigned long rest = result < 0 ? -(unsigned long)result : (unsigned long)result;
    struct iovec line[8];
    int count = 0;

    if (!logs)
        return;
    *--number = '\n';
    do
        *--number = (char)('0' + rest % 10);
    while (rest /= 10);
    if (result < 0)
        *--number = '-';
    line[count++].base = "libbpf-token-shim: ";
    line[count++].base = command->name;
    line[count++].base = " was refused; ";
    line[count++].base = what;
    line[count++].base = bpffs;
    line[count++].base = ": ";
    for (int i = 0; i < count; i++)
        line[i].length = length(line[i].base);
    line[count].base = number;
    line[count++].length = (unsigned long)(digits + sizeof(digits) - number);
    kernel(NR_WRITEV, STDERR, (long)line, count, 0, 0, 0);
}

/* A new token, or a negative errno. */
static long make_token(void)
{
    u32 attr[2] = {0, 0};
    long directory = kernel(NR_OPENAT, AT_FDCWD, (long)bpffs, O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
    long token, high;

    if (directory < 0)
        return directory;
    attr[1] = (u32)directory;
    token = kernel(NR_BPF, TOKEN_CREATE, (long)attr, sizeof(attr), 0, 0, 0);
    kernel(NR_CLOSE, directory, 0, 0, 0, 0, 0);
    if (token < 0)
        return token;
    high = kernel(NR_FCNTL, token, F_DUPFD_CLOEXEC, HIGH, 0, 0, 0);
    if (high < 0)
        return token;
    kernel(NR_CLOSE, token, 0, 0, 0, 0, 0);
    return high;
}

/* Whether the 8 bytes at `address` can be read. rt_sigprocmask(2) fails with EFAULT if they can't,
 * and with EINVAL if they can, because -1 is no way to change the mask. This is needed because a
 * seccomp filter may have refused bpf(2) before the kernel has read the union, whose address may then
 * be wrong. */
static int readable(long address)
{
    return kernel(NR_SIGPROCMASK, -1, address, 0, SIGSET_SIZE, 0, 0) == -EINVAL;
}

static u32 *field(u8 *attr, u8 offset)
{
    return (u32 *)(attr + offset);
}

/* The result of `command` with a token. The caller's union isn't changed, except that it gets what the
 * kernel writes. */
static long with_token(const struct command *command, long cmd, u8 *attr, u32 size, const long *common)
{
    u8 copy[LONGEST] __attribute__((aligned(8)));
    u32 end = command->token + 4u;
    long token, result;

    if (size < SHORTEST || size > LONGEST || !readable((long)attr) || !readable((long)attr + size - 8))
        return -EPERM;
    for (u32 i = 0; i < LONGEST; i++)
        *(volatile u8 *)&copy[i] = i < size ? attr[i] : 0;
    if (*field(copy, command->flags) & F_TOKEN_FD)
        return -EPERM;
    token = make_token();
    if (token < 0) {
        log_result(command, "there is no token from ", token);
        return -EPERM;
    }
    *field(copy, command->flags) |= F_TOKEN_FD;
    *field(copy, command->token) = (u32)token;
    result = kernel(NR_BPF, cmd, (long)copy, size > end ? size : end, common[0], common[1], 0);
    kernel(NR_CLOSE, token, 0, 0, 0, 0, 0);
    log_result(command, "with a token from ", result);
    if (command->written && size >= command->written + 4u &&
        *field(attr, command->written) != *field(copy, command->written))
        *field(attr, command->written) = *field(copy, command->written);
    /* Where the kernel doesn't know this command's token, its first answer is the true one. */
    if (command->number == BTF_GET_FD_BY_ID && result == -EINVAL)
        return -EPERM;
    return result;
}

/* bpf(2), to which syscall() jumps. */
long bpf_call(long number, long cmd, long attr, long size, long common, long common_size)
{
    long result = kernel(number, cmd, attr, size, common, common_size, 0);
    long rest[2] = {common, common_size};

    if (result == -EPERM && bpffs)
        for (u32 i = 0; i < sizeof(COMMANDS) / sizeof(*COMMANDS); i++)
            if (((u32)cmd & ~COMMON_ATTRS) == COMMANDS[i].number)
                result = with_token(&COMMANDS[i], cmd, (u8 *)attr, (u32)size, rest);
    return (unsigned long)result > -4096UL ? failed(result) : result;
}

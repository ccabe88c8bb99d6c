// fuzz SEED COUNT BPFFS makes COUNT calls of bpf(2) that SEED decides, and prints what became of
// each: number, command, size, whether it came with a token, result and errno, and a digest of the
// union after it. Nothing of that depends on when or where this runs, so two runs can be compared.
// Some calls succeed without any help: the program has a token of its own, and with that it has made
// a map, a program and BTF to call with.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// include/uapi/linux/bpf.h, which is ABI.
enum { MAP_CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, PROG_LOAD, TEST_RUN = 10, BTF_LOAD = 18 };
enum { BTF_BY_ID = 19, TOKEN_CREATE = 36, COMMANDS = 48 };
enum { TOKEN = 10, MAP, PROG, BTF, F_TOKEN_FD = 1 << 16, WORDS = 64 };

// At fixed places in a program that isn't position-independent.
static uint32_t attr[WORDS + 1024];
static uint32_t key[64], value[64];
static uint64_t exit_0[] = {0xb7, 0x95};
static char path[] = "/nowhere/at/all", licence[] = "GPL", logs[512];
// struct btf_header, an int of 4 bytes, and its name.
static const uint32_t btf_int[] = {
    0x1eb9f | 1 << 16, 24, 0, 16, 16, 5, 1, 1 << 24, 4, 32, 0x746e6900, 0};
static uint64_t state;

static uint32_t roll(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static uint32_t word(void)
{
    static const uint32_t some[] = {
        0, 1, 2, 3, 4, 7, 8, 16, 24, 64, 4096, TOKEN, MAP, PROG, BTF, 99, F_TOKEN_FD, 0xffffffff};

    return some[roll(sizeof(some) / sizeof(*some))];
}

static void pointer(unsigned at, const void *to)
{
    uint64_t address = (uintptr_t)to;

    memcpy(&attr[at], &address, sizeof(address));
}

// A call that the kernel may well take, if it comes with a token or needs none.
static unsigned fill(unsigned cmd, int token)
{
    memset(attr, 0, sizeof(attr));
    switch (cmd) {
    case MAP_CREATE:
        attr[0] = 2;
        attr[1] = attr[2] = 4;
        attr[3] = 1 + roll(3);
        attr[4] = token ? F_TOKEN_FD : 0;
        attr[19] = token ? TOKEN : 0;
        return 80;
    case PROG_LOAD:
        attr[0] = 1;
        attr[1] = 2;
        pointer(2, exit_0);
        pointer(4, licence);
        if (roll(2)) {
            attr[6] = 1;
            attr[7] = sizeof(logs);
            pointer(8, logs);
        }
        attr[11] = token ? F_TOKEN_FD : 0;
        attr[36] = token ? TOKEN : 0;
        return 148;
    case BTF_LOAD:
        pointer(0, btf_int);
        attr[4] = 45;
        attr[8] = token ? F_TOKEN_FD : 0;
        attr[9] = token ? TOKEN : 0;
        return 40;
    case BTF_BY_ID:
        attr[0] = 1;
        attr[2] = token ? F_TOKEN_FD : 0;
        attr[3] = token ? TOKEN : 0;
        return 16;
    case TOKEN_CREATE:
        attr[1] = 9;
        return 8;
    case LOOKUP:
    case UPDATE:
    case DELETE:
    case NEXT_KEY:
        attr[0] = MAP;
        pointer(2, key);
        pointer(4, value);
        return 32;
    default:
        attr[0] = word();
        pointer(2, roll(2) ? (void *)path : (void *)value);
        attr[4] = word();
        return 4 * (1 + roll(40));
    }
}

// Whether a union of this size comes with a token: the flag is in the third byte of its word.
static int carries(unsigned cmd, unsigned size)
{
    unsigned at;

    switch (cmd) {
    case MAP_CREATE: at = 4; break;
    case PROG_LOAD: at = 11; break;
    case BTF_LOAD: at = 8; break;
    case BTF_BY_ID: at = 2; break;
    default: return 0;
    }
    return size > 4 * at + 2 && attr[at] & F_TOKEN_FD;
}

static unsigned digest(void)
{
    unsigned sum = 0;

    for (int i = 0; i < WORDS; i++)
        /* A log with statistics (4) has the verifier's time, and so any length. */
        sum = sum * 31 + (i == 35 && attr[6] & 4 ? 0 : attr[i]);
    return sum;
}

static void one(unsigned number)
{
    static const unsigned tokens[] = {MAP_CREATE, PROG_LOAD, BTF_LOAD, BTF_BY_ID};
    unsigned cmd = roll(2) ? tokens[roll(4)] : roll(COMMANDS);
    unsigned size = fill(cmd, roll(2));

    for (unsigned changes = roll(3) ? 0 : 1 + roll(3); changes; changes--)
        attr[roll(WORDS)] = word();
    if (!roll(6))
        size = roll(3) ? roll(4 * WORDS) : 4000 + roll(200);
    int given = carries(cmd, size);
    // Linux 7.0: COMMON_ATTRS.
    unsigned full = roll(20) ? cmd : cmd | 1 << 16;
    errno = 0;
    long result = syscall(SYS_bpf, full, attr, size, 0, 0);
    printf("%u %u %u %d %ld %d %u\n", number, full, size, given, result, errno,
           cmd == TEST_RUN ? 0 : digest());
    if (result > 2 && cmd != LOOKUP)
        close((int)result);
}

static void keep(unsigned cmd, int at)
{
    unsigned size = fill(cmd, 1);
    long fd = syscall(SYS_bpf, cmd, attr, size);

    if (fd < 0 || dup2((int)fd, at) != at) {
        perror("what the calls are to be made with");
        exit(1);
    }
    close((int)fd);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    state = strtoul(argv[1], NULL, 10);
    int bpffs = open(argv[3], O_RDONLY | O_DIRECTORY);
    if (bpffs < 0 || (bpffs != 9 && dup2(bpffs, 9) != 9))
        return 3;
    close(bpffs);
    keep(TOKEN_CREATE, TOKEN);
    keep(MAP_CREATE, MAP);
    keep(PROG_LOAD, PROG);
    keep(BTF_LOAD, BTF);
    for (unsigned i = 0; i < strtoul(argv[2], NULL, 10); i++)
        one(i);
    return 0;
}

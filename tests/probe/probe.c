// SPDX-License-Identifier: Apache-2.0
//
// The workload of the tests: runs inside a real container and says, as one JSON object on standard
// output, what bpf(2) grants there through a BPF token. It never attaches anything.
//
// It is C, and static, because it has to run in a root file system that holds nothing but busybox,
// with no Python and no libbpf. It takes nothing from <linux/bpf.h>: the header of Debian 12 is
// older than tokens, so the few constants and the attr layouts it needs are written down here, at
// the offsets that the BTF of Linux 6.18 gives for union bpf_attr (asserted below; they are ABI).
//
//   probe token PATH              make a token from the bpffs at PATH, show its masks
//   probe sweep PATH              every map type, program type and command, through one token
//   probe tokenless               the same without a token
//   probe map PATH TYPE           one map type (PATH "-": without a token)
//   probe prog PATH TYPE [ATTACH] one program type, verifier log on standard error if refused
//   probe deps                    which other bits a type's trivial object needs, see cmd_deps()
//   probe ids                     uid, gid, capabilities and user namespace of this process
//   probe exec-as UID CMD...      become UID with ambient CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN
//   probe drop-bpf CMD...         give up CAP_BPF alone
//
// A result is "ok" or an errno's name. Exit status: 0 if the JSON is complete, whatever it says;
// 1 if the probe itself failed ({"error": ...}); 2 for a wrong command line.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// ---- bpf(2) ------------------------------------------------------------------------------------

enum { MAP_CREATE = 0, PROG_LOAD = 5, BTF_LOAD = 18, BTF_GET_FD_BY_ID = 19, TOKEN_CREATE = 36 };

#define F_TOKEN_FD (1U << 16)  // in map_flags, prog_flags, btf_flags and open_flags alike
#define F_SLEEPABLE (1U << 4)  // prog_flags
#define F_NO_PREALLOC 1U       // map_flags
#define F_MMAPABLE (1U << 10)  // map_flags

// Types are tried up to here: beyond what any kernel has today, so that a new one shows up.
#define TYPE_LAST 40
#define NO_TOKEN (-4096)  // no fd and no -errno either: -1 is -EPERM

struct map_create_attr {
    uint32_t map_type, key_size, value_size, max_entries, map_flags;
    uint32_t inner_map_fd, numa_node;
    char map_name[16];
    uint32_t map_ifindex, btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id;
    uint64_t map_extra;
    int32_t value_type_btf_obj_fd, map_token_fd;
};
struct prog_load_attr {
    uint32_t prog_type, insn_cnt;
    uint64_t insns, license;
    uint32_t log_level, log_size;
    uint64_t log_buf;
    uint32_t kern_version, prog_flags;
    char prog_name[16];
    uint32_t prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size;
    uint64_t func_info;
    uint32_t func_info_cnt, line_info_rec_size;
    uint64_t line_info;
    uint32_t line_info_cnt, attach_btf_id, attach_prog_fd, core_relo_cnt;
    uint64_t fd_array, core_relos;
    uint32_t core_relo_rec_size, log_true_size;
    int32_t prog_token_fd;
    uint32_t fd_array_cnt;
};
struct btf_load_attr {
    uint64_t btf, btf_log_buf;
    uint32_t btf_size, btf_log_size, btf_log_level, btf_log_true_size, btf_flags;
    int32_t btf_token_fd;
};
struct get_fd_by_id_attr {
    uint32_t id, next_id, open_flags;
    int32_t fd_by_id_token_fd;
};
struct token_create_attr {
    uint32_t flags, bpffs_fd;
};
_Static_assert(offsetof(struct map_create_attr, map_token_fd) == 76, "union bpf_attr");
_Static_assert(offsetof(struct prog_load_attr, expected_attach_type) == 68, "union bpf_attr");
_Static_assert(offsetof(struct prog_load_attr, attach_btf_id) == 108, "union bpf_attr");
_Static_assert(offsetof(struct prog_load_attr, prog_token_fd) == 144, "union bpf_attr");
_Static_assert(offsetof(struct btf_load_attr, btf_token_fd) == 36, "union bpf_attr");
_Static_assert(offsetof(struct get_fd_by_id_attr, fd_by_id_token_fd) == 12, "union bpf_attr");

// Like every function below that makes an fd: the fd, or -errno.
static int bpf(int cmd, void *attr, unsigned int size)
{
    long ret = syscall(SYS_bpf, cmd, attr, size);

    return ret < 0 ? -errno : (int)ret;
}

static uint64_t address(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

// Without the flag the kernel does not look at the token's field.
static uint32_t token_flag(int token)
{
    return token == NO_TOKEN ? 0 : F_TOKEN_FD;
}

static int token_create(const char *path)
{
    int bpffs = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), token;
    struct token_create_attr attr = {.bpffs_fd = (uint32_t)bpffs};

    if (bpffs < 0)
        return -errno;
    token = bpf(TOKEN_CREATE, &attr, sizeof attr);
    close(bpffs);
    return token;
}

// ---- BTF ---------------------------------------------------------------------------------------

enum { KIND_STRUCT = 4, KIND_TYPEDEF = 8, KIND_FUNC = 12 };

// The BTF that the probe loads: `int f(struct __sk_buff *ctx)`. The int is what the local storage
// maps want as key and value, the function is what a program must have to be replaced by an ext
// program (its one argument has to be the context, by name) and what the ext program must have too.
#define BTF_INFO(kind, vlen) ((uint32_t)(kind) << 24 | (vlen))
static const char own_strings[] = "\0int\0__sk_buff\0ctx\0f";  // names at 1, 5, 15 and 19
static const uint32_t own_types[] = {
    1,  BTF_INFO(1, 0),  4, 1U << 24 | 32,  // [1] INT, signed, 32 bits
    5,  BTF_INFO(4, 0),  0,                 // [2] STRUCT, no members
    0,  BTF_INFO(2, 0),  2,                 // [3] PTR -> 2
    0,  BTF_INFO(13, 1), 1, 15,         3,  // [4] FUNC_PROTO -> 1, one argument of 3
    19, BTF_INFO(12, 1), 4,                 // [5] FUNC -> 4, global: ext replaces no static one
};
enum { OWN_INT = 1, OWN_FUNC = 5 };

struct btf_header {
    uint16_t magic;
    uint8_t version, flags;
    uint32_t hdr_len, type_off, type_len, str_off, str_len;
};

static int btf_load(int token)
{
    struct {
        struct btf_header header;
        uint32_t types[sizeof own_types / sizeof own_types[0]];
        char strings[sizeof own_strings];
    } blob = {
        .header = {0xeb9f, 1, 0, sizeof(struct btf_header), 0, sizeof own_types, sizeof own_types,
                   sizeof own_strings},
    };
    struct btf_load_attr attr = {
        .btf = address(&blob),
        // Not sizeof blob: the compiler pads it, and the kernel wants the string section to end it.
        .btf_size = sizeof blob.header + sizeof own_types + sizeof own_strings,
        .btf_flags = token_flag(token),
        .btf_token_fd = token,
    };

    memcpy(blob.types, own_types, sizeof own_types);
    memcpy(blob.strings, own_strings, sizeof own_strings);
    return bpf(BTF_LOAD, &attr, sizeof attr);
}

// The permission is checked before the id is looked up, so ENOENT would say "allowed" as well; but
// a caller wants "ok", hence the walk to the first id in use (vmlinux has one since boot).
static int btf_get_fd_by_id(int token)
{
    int fd = -ENOENT;

    for (uint32_t id = 1; id <= 1024 && fd == -ENOENT; id++) {
        struct get_fd_by_id_attr attr = {
            .id = id,
            .open_flags = token_flag(token),
            .fd_by_id_token_fd = token,
        };
        fd = bpf(BTF_GET_FD_BY_ID, &attr, sizeof attr);
    }
    return fd;
}

// The kernel's own BTF, read once; NULL if there is none here. It has about 6 MB, and what is never
// written of the buffer costs nothing.
static const char *vmlinux_btf(void)
{
    static char data[64 << 20];
    FILE *file;

    if (!data[0] && (file = fopen("/sys/kernel/btf/vmlinux", "re"))) {
        if (fread(data, 1, sizeof data, file) == sizeof data)
            data[0] = 0;
        fclose(file);
    }
    return data[0] ? data : NULL;
}

// Bytes that follow the 12 of struct btf_type. A kind beyond the last of Linux 6.18 (19, ENUM64) is
// not walked past: what is behind it is not found.
static const uint32_t btf_fixed[32] = {[1] = 4, [3] = 12, [14] = 4, [17] = 4};
static const uint32_t btf_each[32] = {[4] = 12, [5] = 12, [6] = 8, [13] = 8, [15] = 12, [19] = 12};

// The id of a type of the running kernel, or 0; *size is its size in bytes for a struct.
static uint32_t vmlinux_id(uint32_t wanted, const char *name, uint32_t *size)
{
    const char *base = vmlinux_btf(), *strings;
    struct btf_header header;
    uint32_t type[3], kind;  // type: name_off, info, size or type

    if (!base)
        return 0;
    memcpy(&header, base, sizeof header);
    strings = base + header.hdr_len + header.str_off;
    base += header.hdr_len + header.type_off;
    for (uint32_t id = 1, at = 0; at < header.type_len; id++) {
        memcpy(type, base + at, sizeof type);
        kind = type[1] >> 24 & 31;
        if (kind > 19)
            return 0;
        if (kind == wanted && strcmp(strings + type[0], name) == 0) {
            if (size)
                *size = type[2];
            return id;
        }
        at += (uint32_t)sizeof type + btf_fixed[kind] + btf_each[kind] * (type[1] & 0xffff);
    }
    return 0;
}

// ---- maps --------------------------------------------------------------------------------------

enum needs { NOTHING, INNER_MAP, STORAGE_BTF, STRUCT_OPS_BTF };

struct map_spec {
    uint32_t key, value, entries, flags;
    enum needs needs;
};

#define INNER_TYPE 2  // array: any type but another map of maps would do, and none is free of a bit
static const struct map_spec plain_map = {4, 4, 1, 0, NOTHING};
static const struct map_spec map_specs[TYPE_LAST + 1] = {
    [7] = {4, 8, 1, 0, NOTHING},               // stack_trace: whole instruction pointers
    [11] = {8, 4, 1, F_NO_PREALLOC, NOTHING},  // lpm_trie: the key starts with a prefix length
    [12] = {4, 4, 1, 0, INNER_MAP},            // array_of_maps
    [13] = {4, 4, 1, 0, INNER_MAP},            // hash_of_maps
    [19] = {8, 4, 0, 0, NOTHING},              // cgroup_storage: keyed by cgroup id
    [21] = {8, 4, 0, 0, NOTHING},              // percpu_cgroup_storage
    [22] = {0, 4, 1, 0, NOTHING},              // queue
    [23] = {0, 4, 1, 0, NOTHING},              // stack
    // Local storage insists on BTF for its key and value (bpf_local_storage_map_alloc_check).
    [24] = {4, 4, 0, F_NO_PREALLOC, STORAGE_BTF},  // sk_storage
    [26] = {4, 0, 1, 0, STRUCT_OPS_BTF},           // struct_ops
    [27] = {0, 0, 65536, 0, NOTHING},              // ringbuf: whole pages, of any page size
    [28] = {4, 4, 0, F_NO_PREALLOC, STORAGE_BTF},  // inode_storage
    [29] = {4, 4, 0, F_NO_PREALLOC, STORAGE_BTF},  // task_storage
    [30] = {0, 4, 1, 0, NOTHING},                  // bloom_filter
    [31] = {0, 0, 65536, 0, NOTHING},              // user_ringbuf
    [32] = {4, 4, 0, F_NO_PREALLOC, STORAGE_BTF},  // cgrp_storage
    [33] = {0, 0, 1, F_MMAPABLE, NOTHING},         // arena: entries are pages
    [34] = {4, 16, 1, 0, NOTHING},                 // insn_array (6.19): struct bpf_insn_array_value
    [35] = {4, 4, 1, F_NO_PREALLOC, NOTHING},      // rhash (7.2)
};

static const struct map_spec *map_spec(int type)
{
    static const struct map_spec none;

    return memcmp(&map_specs[type], &none, sizeof none) ? &map_specs[type] : &plain_map;
}

static int map_create(int token, int type)
{
    const struct map_spec *spec = map_spec(type);
    struct map_create_attr attr = {
        .map_type = (uint32_t)type,
        .key_size = spec->key,
        .value_size = spec->value,
        .max_entries = spec->entries,
        .map_flags = spec->flags | token_flag(token),
        .map_token_fd = token,
    };
    int helper = -1, fd;

    if (spec->needs == INNER_MAP) {
        helper = map_create(token, INNER_TYPE);
        attr.inner_map_fd = (uint32_t)helper;
    } else if (spec->needs != NOTHING) {
        helper = btf_load(token);
        attr.btf_fd = (uint32_t)helper;
    }
    if (spec->needs != NOTHING && helper < 0)
        return helper;
    if (spec->needs == STORAGE_BTF)
        attr.btf_key_type_id = attr.btf_value_type_id = OWN_INT;
    else if (spec->needs == STRUCT_OPS_BTF)
        // The value is the kernel's own type, but there has to be a BTF of the program's as well.
        attr.btf_vmlinux_value_type_id =
            vmlinux_id(KIND_STRUCT, "bpf_struct_ops_bpf_dummy_ops", &attr.value_size);
    fd = bpf(MAP_CREATE, &attr, sizeof attr);
    if (helper >= 0)
        close(helper);
    return fd;
}

// ---- programs ----------------------------------------------------------------------------------

enum { EXT = 28, STRUCT_OPS = 27, TRACING = 26, LSM = 29, SYSCALL = 31 };

// The expected_attach_type of each program type's trivial program. It is what the kernel holds
// against delegate_attachs, and 0 means cgroup_inet_ingress there: so each type gets a value of its
// own where it has one. The types that are 0 here have none (libbpf loads them with 0 as well);
// for ext and syscall the kernel insists on 0 (bpf_prog_load_check_attach).
static const int attach_types[TYPE_LAST + 1] = {
    [2] = 42,           // kprobe: trace_kprobe_multi
    [3] = 46,           // sched_cls: tcx_ingress
    [6] = 37,           // xdp
    [8] = 1,            // cgroup_skb: cgroup_inet_egress
    [9] = 2,            // cgroup_sock: cgroup_inet_sock_create, what the kernel makes of 0
    [13] = 3,           // sock_ops: cgroup_sock_ops
    [14] = 5,           // sk_skb: sk_skb_stream_verdict
    [15] = 6,           // cgroup_device
    [16] = 7,           // sk_msg: sk_msg_verdict
    [18] = 10,          // cgroup_sock_addr: cgroup_inet4_connect
    [20] = 16,          // lirc_mode2
    [21] = 39,          // sk_reuseport: sk_reuseport_select
    [22] = 17,          // flow_dissector
    [23] = 18,          // cgroup_sysctl
    [25] = 21,          // cgroup_sockopt: cgroup_getsockopt
    [TRACING] = 28,     // trace_iter: the one that needs no trampoline to load
    [STRUCT_OPS] = 1,   // not an attach type but a member's index: the kernel checks it as one
    [LSM] = 27,         // lsm_mac
    [30] = 36,          // sk_lookup
    [32] = 45,          // netfilter
};

// What a program of the kernel's BTF-typed hooks is attached to, by its expected_attach_type.
static const struct {
    int attach;
    uint32_t kind;
    const char *name;
} btf_targets[] = {
    {23, KIND_TYPEDEF, "btf_trace_sched_switch"},  // trace_raw_tp
    {24, KIND_FUNC, "bpf_fentry_test1"},           // trace_fentry
    {25, KIND_FUNC, "bpf_fentry_test1"},           // trace_fexit
    {26, KIND_FUNC, "bpf_modify_return_test"},     // modify_return
    {27, KIND_FUNC, "bpf_lsm_file_open"},          // lsm_mac
    {28, KIND_FUNC, "bpf_iter_task"},              // trace_iter
    {43, KIND_FUNC, "bpf_lsm_socket_bind"},        // lsm_cgroup
};

static uint32_t attach_btf_id(int type, int attach)
{
    if (type == STRUCT_OPS)
        return vmlinux_id(KIND_STRUCT, "bpf_dummy_ops", NULL);
    for (size_t i = 0; i < sizeof btf_targets / sizeof btf_targets[0]; i++)
        if (btf_targets[i].attach == attach)
            return vmlinux_id(btf_targets[i].kind, btf_targets[i].name, NULL);
    return 0;
}

// `return N`. Nearly every type takes 0; the cgroup hooks behind recvmsg(2), getpeername(2) and
// getsockname(2) take nothing but 1 (check_return_code in the verifier).
static const uint8_t *instructions(int type)
{
    static uint8_t insns[16] = {[0] = 0xb7, [8] = 0x95};  // r0 = imm; exit

    insns[4] = type == 18;
    return insns;
}

static char verifier_log[16384];

static int prog_load(int token, int type, int attach, int btf, int target, int log_level)
{
    static const uint32_t func_info[] = {0, OWN_FUNC};  // instruction offset, type
    struct prog_load_attr attr = {
        .prog_type = (uint32_t)type,
        .insn_cnt = 2,
        .insns = address(instructions(type)),
        .license = address("GPL"),
        .prog_flags = (type == SYSCALL ? F_SLEEPABLE : 0) | token_flag(token),
        .expected_attach_type = (uint32_t)attach,
        .prog_token_fd = token,
    };

    if (log_level) {
        attr.log_level = (uint32_t)log_level;
        attr.log_buf = address(verifier_log);
        attr.log_size = sizeof verifier_log;
    }
    if (btf >= 0) {
        attr.prog_btf_fd = (uint32_t)btf;
        attr.func_info = address(func_info);
        attr.func_info_rec_size = sizeof func_info;
        attr.func_info_cnt = 1;
    }
    if (type == EXT) {
        attr.attach_prog_fd = (uint32_t)target;
        attr.attach_btf_id = OWN_FUNC;
    } else if (type == TRACING || type == LSM || type == STRUCT_OPS) {
        attr.attach_btf_id = attach_btf_id(type, attach);
        if (!attr.attach_btf_id)
            return -ENODATA;
    }
    return bpf(PROG_LOAD, &attr, sizeof attr);
}

#define EXT_TARGET 1  // socket_filter, with attach type 0 like the ext program itself

static int ext_load(int token, int attach, int log_level)
{
    int btf, target, fd;

    btf = btf_load(token);
    if (btf < 0)
        return btf;
    target = prog_load(token, EXT_TARGET, 0, btf, -1, 0);
    fd = target < 0 ? target : prog_load(token, EXT, attach, btf, target, log_level);
    if (target >= 0)
        close(target);
    close(btf);
    return fd;
}

static int prog_create(int token, int type, int attach, int log_level)
{
    return type == EXT ? ext_load(token, attach, log_level)
                       : prog_load(token, type, attach, -1, -1, log_level);
}

// ---- reports -----------------------------------------------------------------------------------

static const char *errno_name(int number)
{
    static char unknown[16];
    const char *name = strerrorname_np(number);

    if (name)
        return name;
    if (number == 524)
        return "ENOTSUPP";  // the kernel's own, not one of POSIX, leaks out of bpf(2)
    snprintf(unknown, sizeof unknown, "E%d", number);
    return unknown;
}

// What to print for the result of a call that makes an fd; closes the fd.
static const char *outcome(int fd)
{
    if (fd < 0)
        return errno_name(-fd);
    close(fd);
    return "ok";
}

static int failure(const char *what)
{
    printf("{\"error\": \"%s\", \"errno\": \"%s\"}\n", what, errno_name(errno));
    return 1;
}

static int cmd_token(const char *path)
{
    char file[64], line[256], key[64], value[64];
    int token = token_create(path);
    FILE *info;

    if (token < 0) {
        printf("{\"token\": \"%s\"}\n", errno_name(-token));
        return 0;
    }
    snprintf(file, sizeof file, "/proc/self/fdinfo/%d", token);
    info = fopen(file, "re");
    if (!info)
        return failure(file);
    printf("{\"token\": \"ok\"");
    while (fgets(line, sizeof line, info))  // "allowed_cmds:\t0x20", or "any"
        if (sscanf(line, "allowed_%40[a-z]: %60s", key, value) == 2)
            printf(", \"allowed_%s\": \"%s\"", key, value);
    printf("}\n");
    fclose(info);
    return 0;
}

// Returns whether any type could be made: a command that makes typed objects shows in them alone.
static int sweep(const char *title, int token, int (*make)(int token, int type))
{
    int any = 0;

    printf(", \"%s\": {", title);
    for (int type = 1; type <= TYPE_LAST; type++) {
        int fd = make(token, type);

        any |= fd >= 0;
        printf("%s\"%d\": \"%s\"", type == 1 ? "" : ", ", type, outcome(fd));
    }
    printf("}");
    return any;
}

static int make_prog(int token, int type)
{
    return prog_create(token, type, attach_types[type], 0);
}

static int cmd_sweep(const char *path)
{
    int token = path ? token_create(path) : NO_TOKEN;
    int maps, progs;

    if (token < 0 && token != NO_TOKEN) {
        printf("{\"token\": \"%s\"}\n", errno_name(-token));
        return 0;
    }
    printf("{\"token\": \"%s\"", token == NO_TOKEN ? "none" : "ok");
    maps = sweep("maps", token, map_create);
    progs = sweep("progs", token, make_prog);
    printf(", \"cmds\": {\"map_create\": \"%s\"", maps ? "ok" : "EPERM");
    printf(", \"prog_load\": \"%s\"", progs ? "ok" : "EPERM");
    printf(", \"btf_load\": \"%s\"", outcome(btf_load(token)));
    printf(", \"btf_get_fd_by_id\": \"%s\"}}\n", outcome(btf_get_fd_by_id(token)));
    return 0;
}

static int cmd_one(char **args, int is_prog)
{
    int token = strcmp(args[0], "-") ? token_create(args[0]) : NO_TOKEN;
    int type = atoi(args[1]), attach, fd;

    if (token < 0 && token != NO_TOKEN) {
        printf("{\"token\": \"%s\", \"result\": null}\n", errno_name(-token));
        return 0;
    }
    if (type < 0 || type > TYPE_LAST) {
        errno = ERANGE;
        return failure("type");
    }
    attach = is_prog && args[2] ? atoi(args[2]) : attach_types[type];
    fd = is_prog ? prog_create(token, type, attach, 0) : map_create(token, type);
    if (is_prog && fd < 0) {
        prog_create(token, type, attach, 1);
        fputs(verifier_log, stderr);
    }
    printf("{\"token\": \"%s\", ", token == NO_TOKEN ? "none" : "ok");
    printf("\"result\": \"%s\"}\n", outcome(fd));
    return 0;
}

// What a type's object needs delegated beside its own bit and the command map_create or prog_load:
// {"maps": {"12": {"maps": [2]}}, "progs": {"6": {"attachs": [37]}}}. A type without an entry needs
// nothing more. "attachs" is always there for a program type: 0 is a bit like any other.
static int cmd_deps(void)
{
    const char *comma = "";

    printf("{\"maps\": {");
    for (int type = 1; type <= TYPE_LAST; type++) {
        enum needs needs = map_spec(type)->needs;

        if (needs == INNER_MAP)
            printf("%s\"%d\": {\"maps\": [%d]}", comma, type, INNER_TYPE);
        else if (needs != NOTHING)
            printf("%s\"%d\": {\"cmds\": [%d]}", comma, type, BTF_LOAD);
        else
            continue;
        comma = ", ";
    }
    printf("}, \"progs\": {");
    for (int type = 1; type <= TYPE_LAST; type++) {
        printf("%s\"%d\": {\"attachs\": [%d]", type == 1 ? "" : ", ", type, attach_types[type]);
        if (type == EXT)
            printf(", \"progs\": [%d], \"cmds\": [%d]", EXT_TARGET, BTF_LOAD);
        printf("}");
    }
    printf("}}\n");
    return 0;
}

static int cmd_ids(void)
{
    char line[256], caps[32] = "";
    FILE *status = fopen("/proc/self/status", "re");
    struct stat userns;

    if (!status || stat("/proc/self/ns/user", &userns) < 0)
        return failure("/proc/self");
    while (fgets(line, sizeof line, status))
        sscanf(line, "CapEff: %31s", caps);
    fclose(status);
    printf("{\"uid\": %u, \"gid\": %u, \"cap_eff\": \"%s\", \"userns\": %lu}\n", getuid(), getgid(),
           caps, (unsigned long)userns.st_ino);
    return 0;
}

// ---- capabilities ------------------------------------------------------------------------------

enum { BPF = 39, PERFMON = 38, NET_ADMIN = CAP_NET_ADMIN };

// The kernel's layout is two halves of 32 capabilities (capget(2)); no libcap in a static probe.
typedef struct __user_cap_data_struct caps[2];

static int caps_call(long number, caps data)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};

    return (int)syscall(number, &header, data);
}

static int exec(char **command)
{
    execvp(command[0], command);
    return failure("exec");
}

static int cmd_exec_as(uid_t uid, char **command)
{
    static const int wanted[] = {BPF, PERFMON, NET_ADMIN};
    caps had, keep = {0};

    if (caps_call(SYS_capget, had) < 0)
        return failure("capget");
    // Only what the container gave: without CAP_PERFMON the test still gets a non-root CAP_BPF.
    for (int i = 0; i < 3; i++)
        keep[wanted[i] / 32].permitted |= had[wanted[i] / 32].permitted & 1U << wanted[i] % 32;
    for (int i = 0; i < 2; i++)
        keep[i].effective = keep[i].inheritable = keep[i].permitted;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
        setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        return failure("setresuid");
    if (caps_call(SYS_capset, keep) < 0)
        return failure("capset");
    for (int i = 0; i < 3; i++)
        if (keep[wanted[i] / 32].permitted & 1U << wanted[i] % 32 &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, wanted[i], 0, 0) < 0)
            return failure("ambient");
    return exec(command);
}

// From the bounding set too: otherwise exec would hand CAP_BPF back to root.
static int cmd_drop_bpf(char **command)
{
    uint32_t others = ~(1U << BPF % 32);
    caps have;

    if (prctl(PR_CAPBSET_DROP, BPF, 0, 0, 0) < 0)
        return failure("capbset_drop");
    if (caps_call(SYS_capget, have) < 0)
        return failure("capget");
    have[BPF / 32].effective &= others;
    have[BPF / 32].permitted &= others;
    have[BPF / 32].inheritable &= others;  // and so the ambient set, which can't be larger
    return caps_call(SYS_capset, have) < 0 ? failure("capset") : exec(command);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    char **args = argv + 2;
    int count = argc - 2;

    if (!strcmp(name, "token") && count == 1)
        return cmd_token(args[0]);
    if (!strcmp(name, "sweep") && count == 1)
        return cmd_sweep(args[0]);
    if (!strcmp(name, "tokenless") && count == 0)
        return cmd_sweep(NULL);
    if (!strcmp(name, "map") && count == 2)
        return cmd_one(args, 0);
    if (!strcmp(name, "prog") && (count == 2 || count == 3))
        return cmd_one(args, 1);
    if (!strcmp(name, "deps") && count == 0)
        return cmd_deps();
    if (!strcmp(name, "ids") && count == 0)
        return cmd_ids();
    if (!strcmp(name, "exec-as") && count >= 2)
        return cmd_exec_as((uid_t)strtoul(args[0], NULL, 10), args + 1);
    if (!strcmp(name, "drop-bpf") && count >= 1)
        return cmd_drop_bpf(args);
    fputs("usage: probe token|sweep PATH | map PATH TYPE | prog PATH TYPE [ATTACH] | tokenless |\n"
          "       deps | ids | exec-as UID CMD... | drop-bpf CMD...\n",
          stderr);
    return 2;
}

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The guard: what a confined BPF token may not do.
 *
 * The delegate_* masks choose types of programs; they don't choose what a program calls.  Whoever
 * grants a confined bpffs marks its root directory here (`marks`), before the container sees it.  A
 * token that is made from a marked bpffs is confined, and through it
 *
 *   - no capability counts but CAP_BPF and CAP_NET_ADMIN, whatever the user namespace gives;
 *   - only types of programs load that are listed (`config.types`);
 *   - a program calls no kernel function that isn't listed for its type (`kfuncs`), none of a
 *     module's, no helper that is closed for its type (`helpers`), and takes no address of a
 *     kernel variable.
 *
 * Tokens from any other bpffs are left alone.  What is refused is kept for each user namespace, for
 * people (`spaces`), and is put in a queue for the audit trail (`events`).
 *
 * The hooks are those of kernel/bpf/token.c and syscall.c since Linux 6.9: bpf_prog_load() copies
 * the instructions and only then asks the LSMs, and the verifier works on that copy.  The helpers
 * that it takes to look at them are for programs under the GPL alone.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The layout of the maps that the user's side reads: guard.py and lsm/layout.py have it too. */
#define VERSION 1

#define EPERM 1
#define CAP_NET_ADMIN 12
#define CAP_BPF 39

#define NAME 16
#define TYPES 64
/* Tokens of one user namespace: each holds a file descriptor, and so programs need a few. */
#define TOKENS_OF_SPACE 1024
#define LAST 8
/* Nanoseconds between two records of one user namespace in the queue. */
#define PACE 100000000ULL

/* Instructions that are copied at a time; the stack has 512 bytes. */
#define CHUNK 32
#define CHUNKS_MAX (1 << 20)

/* What an instruction is, by its code and its source register. */
#define CALL (BPF_JMP | BPF_CALL)
#define LOAD_IMM64 (BPF_LD | BPF_IMM | BPF_DW)
#define HELPERS 1024

struct user_namespace;

/* The kernel's types, as far as they are of interest; CO-RE finds the fields where they are. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	__u32 inum;
};
struct user_namespace {
	struct ns_common ns;
};
struct inode {
};
struct dentry {
	struct inode *d_inode;
};
struct path {
	struct dentry *dentry;
};
struct bpf_token {
	struct user_namespace *userns;
};
struct bpf_prog_aux {
	struct bpf_token *token;
	char name[NAME];
};
struct bpf_prog {
	__u32 len;
	__u32 type;
	struct bpf_prog_aux *aux;
	struct bpf_insn insnsi[0];
};
struct pt_regs {
};
struct task_struct {
};
#pragma clang attribute pop

/* Why something is refused, and what `what` is of it. */
enum reason {
	KFUNC = 1,	/* the BTF id of a kernel function that isn't listed for the type */
	MODULE,		/* the same, in a module */
	HELPER,		/* the number of a helper that is closed for the type */
	VARIABLE,	/* the BTF id of a kernel variable */
	TYPE,		/* the type of the program, which isn't listed */
	CAPABILITY,	/* the capability */
	TOKENS,		/* how many tokens the user namespace has */
	UNREADABLE,	/* nothing: the instructions couldn't be read */
};

struct refusal {
	__u64 number;	/* counts all refusals, so that a reader sees what it has missed */
	__u64 time;	/* CLOCK_BOOTTIME, in nanoseconds */
	__u32 space;	/* the user namespace's inode number */
	__u32 uid;	/* as the host has it */
	__u32 pid;	/* likewise */
	__u32 reason;
	__u32 what;
	__u32 type;	/* the program's, or NO_TYPE */
	__u32 insn;	/* the instruction's index */
	__u32 padding;
	char program[NAME];
	char command[NAME];
};

#define NO_TYPE 0xffffffffU

struct space {
	__u32 tokens;
	__u32 refusals;
	__u64 queued;
	struct refusal last[LAST];
};

struct config {
	__u32 version;
	__u32 proved;		/* set once the guard has been seen to refuse on this kernel */
	__u64 types;		/* a bit for each type of program that a confined token loads */
	__u64 perfmon;		/* a bit for each type that takes CAP_PERFMON, for the records */
	__u32 command_at;	/* where a system call's first two arguments are in struct pt_regs, */
	__u32 attr_at;		/* or 0 twice where nobody knows */
	__u32 programs[4];	/* the ids of the programs below, in their order */
	__u32 maps[2];		/* the ids of `marks` and `tokens` */
	__u8 list[32];		/* SHA-256 of the lists that were loaded */
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} tokens SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct space);
} spaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1024);
	__type(value, struct refusal);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

/* BTF ids of kernel functions; a bit for each type of program that may call it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} kfuncs SEC(".maps");

/* Numbers of helpers; a bit for each type of program that may not call it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, HELPERS);
	__type(key, __u32);
	__type(value, __u64);
} helpers SEC(".maps");

/* The record that is being made: it is too large for the stack beside a space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct space);
} blank SEC(".maps");

static const __u32 zero;

static struct space *space_of(__u32 inum)
{
	struct space *space = bpf_map_lookup_elem(&spaces, &inum);
	struct space *empty;

	if (space)
		return space;
	empty = bpf_map_lookup_elem(&blank, &zero);
	if (!empty)
		return 0;
	/* Whoever is first makes it. */
	bpf_map_update_elem(&spaces, &inum, empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&spaces, &inum);
}

/* Keep what was refused.  It never decides anything: what can't be kept is refused all the same. */
static void keep(__u32 inum, struct refusal *refusal)
{
	struct space *space = space_of(inum);
	__u64 *number = bpf_map_lookup_elem(&numbers, &zero);
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 at;

	if (!space || !number)
		return;
	refusal->number = __sync_fetch_and_add(number, 1) + 1;
	refusal->time = now;
	refusal->space = inum;
	refusal->uid = bpf_get_current_uid_gid();
	refusal->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(refusal->command, sizeof(refusal->command));
	at = __sync_fetch_and_add(&space->refusals, 1);
	__builtin_memcpy(&space->last[at % LAST], refusal, sizeof(*refusal));
	/* One user namespace can't push everybody else's out of the queue at once. */
	if (space->queued && now - space->queued < PACE)
		return;
	space->queued = now;
	bpf_map_push_elem(&events, refusal, BPF_EXIST);
}

/* The user namespace of a confined token, or 0: inode numbers of namespaces begin far above. */
static __u32 confined(struct bpf_token *token)
{
	__u64 key = (__u64)token;
	__u32 *inum = token ? bpf_map_lookup_elem(&tokens, &key) : 0;

	return inum ? *inum : 0;
}

SEC("lsm/bpf_token_create")
int token_create(unsigned long long *ctx)
{
	struct bpf_token *token = (void *)ctx[0];
	struct path *path = (void *)ctx[2];
	struct inode *inode = path->dentry->d_inode;
	__u64 key = (__u64)token;
	__u32 inum = token->userns->ns.inum;
	struct refusal refusal = {};
	struct space *space;

	if (!inode || !bpf_inode_storage_get(&marks, inode, 0, 0))
		return 0;
	space = space_of(inum);
	if (space && space->tokens < TOKENS_OF_SPACE &&
	    !bpf_map_update_elem(&tokens, &key, &inum, BPF_ANY)) {
		__sync_fetch_and_add(&space->tokens, 1);
		return 0;
	}
	refusal.reason = TOKENS;
	refusal.type = NO_TYPE;
	refusal.what = space ? space->tokens : 0;
	keep(inum, &refusal);
	return -EPERM;
}

SEC("lsm/bpf_token_free")
int token_free(unsigned long long *ctx)
{
	__u64 key = ctx[0];
	__u32 *inum = bpf_map_lookup_elem(&tokens, &key);
	struct space *space;

	if (!inum)
		return 0;
	space = bpf_map_lookup_elem(&spaces, inum);
	/* A namespace that was forgotten meanwhile, for others that were busier, counts from 0. */
	if (space && space->tokens)
		__sync_fetch_and_add(&space->tokens, -1);
	bpf_map_delete_elem(&tokens, &key);
	return 0;
}

/*
 * The capability is asked for before the program exists, and again and again by the verifier, which
 * merely goes without.  Which of both it is, the command's own attributes tell: only a program of a
 * type that takes CAP_PERFMON is refused for lack of it.  They are the user's memory, and good for
 * a record alone.
 */
static int describe(struct refusal *refusal, struct config *config)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	__u64 command = 0, attr = 0;

	if (!regs || config->command_at == config->attr_at)
		return 0;
	if (bpf_probe_read_kernel(&command, sizeof(command), (void *)regs + config->command_at) ||
	    bpf_probe_read_kernel(&attr, sizeof(attr), (void *)regs + config->attr_at))
		return 0;
	if (command != BPF_PROG_LOAD)
		return 0;
	if (bpf_probe_read_user(&refusal->type, sizeof(refusal->type), (void *)attr))
		return 0;
	if (refusal->type >= TYPES || !(config->perfmon >> refusal->type & 1))
		return 0;
	attr += __builtin_offsetof(union bpf_attr, prog_name);
	bpf_probe_read_user(refusal->program, sizeof(refusal->program), (void *)attr);
	refusal->program[NAME - 1] = 0;
	return 1;
}

SEC("lsm/bpf_token_capable")
int token_capable(unsigned long long *ctx)
{
	int capability = (int)ctx[1];
	struct refusal refusal = {};
	struct config *rules;
	__u32 inum;

	if (capability == CAP_BPF || capability == CAP_NET_ADMIN)
		return 0;
	inum = confined((void *)ctx[0]);
	if (!inum)
		return 0;
	rules = bpf_map_lookup_elem(&config, &zero);
	refusal.reason = CAPABILITY;
	refusal.what = capability;
	if (rules && describe(&refusal, rules))
		keep(inum, &refusal);
	return -EPERM;
}

struct scan {
	const struct bpf_insn *insns;
	__u32 len;
	__u32 type;
	struct refusal *refusal;
};

/* What is wrong with an instruction, 0 if nothing is. */
static enum reason judge(__u64 insn, __u32 type, __u32 *what)
{
	__u8 code = insn, src = insn >> 12 & 0xf;
	__s16 off = insn >> 16;
	__u64 *mask;

	*what = insn >> 32;
	if (code == CALL && src == BPF_PSEUDO_KFUNC_CALL) {
		if (off)
			return MODULE;
		mask = bpf_map_lookup_elem(&kfuncs, what);
		return mask && *mask >> type & 1 ? 0 : KFUNC;
	}
	if (code == CALL && !src) {
		/* Whatever no kernel has (libbpf puts it where dead code was) the verifier refuses. */
		mask = bpf_map_lookup_elem(&helpers, what);
		return mask && *mask >> type & 1 ? HELPER : 0;
	}
	if (code == LOAD_IMM64 && src == BPF_PSEUDO_BTF_ID)
		return VARIABLE;
	return 0;
}

static long look(__u32 chunk, struct scan *scan)
{
	__u32 first = chunk * CHUNK, count = scan->len - first, i;
	__u64 insns[CHUNK];

	if (first >= scan->len)
		return 1;
	if (count > CHUNK)
		count = CHUNK;
	if (bpf_probe_read_kernel(insns, count * sizeof(insns[0]), scan->insns + first)) {
		scan->refusal->reason = UNREADABLE;
		return 1;
	}
	for (i = 0; i < CHUNK; i++) {
		/* A call, or an address: nothing else is of interest. */
		__u8 code = insns[i];

		if (i >= count)
			return 0;
		if (code != CALL && code != LOAD_IMM64)
			continue;
		scan->refusal->reason = judge(insns[i], scan->type, &scan->refusal->what);
		if (scan->refusal->reason) {
			scan->refusal->insn = first + i;
			return 1;
		}
	}
	return 0;
}

SEC("lsm/bpf_prog_load")
int prog_load(unsigned long long *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	struct refusal refusal = {};
	__u32 inum = confined(prog->aux->token);
	struct config *rules;
	struct scan scan;

	if (!inum)
		return 0;
	rules = bpf_map_lookup_elem(&config, &zero);
	scan.type = refusal.type = prog->type;
	if (!rules || scan.type >= TYPES || !(rules->types >> scan.type & 1)) {
		refusal.reason = TYPE;
		refusal.what = scan.type;
	} else {
		scan.insns = &prog->insnsi[0];
		scan.len = prog->len;
		scan.refusal = &refusal;
		bpf_loop((scan.len + CHUNK - 1) / CHUNK, look, &scan, 0);
	}
	if (!refusal.reason)
		return 0;
	bpf_probe_read_kernel(refusal.program, sizeof(refusal.program), prog->aux->name);
	keep(inum, &refusal);
	return -EPERM;
}

char LICENSE[] SEC("license") = "GPL";

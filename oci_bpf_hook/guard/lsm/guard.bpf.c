// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The guard: limits what a confined BPF token may do.
 *
 * The delegate_* masks choose types of programs, not what a program calls.  Whoever grants a
 * confined bpffs marks its root directory here (`marks`), before the container sees it.  A token
 * that is made from a marked bpffs is confined, and with it
 *
 *   - only the listed capabilities count (`config.capabilities`), whatever the user namespace
 *     gives: CAP_BPF and CAP_NET_ADMIN count, CAP_PERFMON doesn't;
 *   - only maps and programs of the listed types are made (`config.map_types`, `config.types`);
 *   - a program calls only kernel functions that are listed for its type (`kfuncs`), none of a
 *     module's, and no helper that is closed for its type (`helpers`), and takes no address of a
 *     kernel variable;
 *   - no program exists with loads that the verifier doesn't trust (`config.loads`): the verifier
 *     turns these into loads that may fault, and they read the kernel's memory.
 *
 * Tokens from any other bpffs are left alone.  Refusals are kept for each user namespace, for
 * people (`spaces`), and are put into a queue for the audit trail (`events`).
 *
 * The hooks are there since 6.9 (Linux: kernel/bpf/token.c, kernel/bpf/syscall.c).  bpf_prog_load()
 * copies the instructions and only then asks the LSMs (bpf_prog_load), and the verifier works on
 * that copy.  Before anybody gets a file descriptor of the program, the LSMs are asked again
 * (bpf_prog), and see what the verifier has made of it.  Only programs under the GPL may call the
 * helpers that are needed to look at instructions.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The layout of the maps that user space reads; pinned.py, load.py and refusals.py have it too. */
#define VERSION 1

#define EPERM 1

#define NAME 16
#define BITS 64
/* Tokens of one user: a program needs only one, and each takes a file descriptor. */
#define TOKENS_OF_USER 1024
#define LAST 8
/* Nanoseconds between two records of one user in the queue. */
#define PACE 100000000ULL

/* Instructions that are copied at a time; the stack has 512 bytes. */
#define CHUNK 32

/* The parts of an instruction as struct bpf_insn has them, in the machine's byte order. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CODE_OF(insn) ((__u8)(insn))
#define SRC_OF(insn) ((__u8)((insn) >> 12 & 0xf))
#define OFF_OF(insn) ((__u16)((insn) >> 16))
#define IMM_OF(insn) ((__u32)((insn) >> 32))
#else
#define CODE_OF(insn) ((__u8)((insn) >> 56))
#define SRC_OF(insn) ((__u8)((insn) >> 48 & 0xf))
#define OFF_OF(insn) ((__u16)((insn) >> 32))
#define IMM_OF(insn) ((__u32)(insn))
#endif

/* The kinds of instructions, by their code. */
#define CALL (BPF_JMP | BPF_CALL)
#define LOAD_IMM64 (BPF_LD | BPF_IMM | BPF_DW)
#define ATOMIC_MASK 0xe7
#define ATOMIC (BPF_STX | BPF_ATOMIC)
/* Linux 6.15 and later: an atomic load, which the verifier doesn't turn into one that may fault. */
#define LOAD_ACQUIRE 0x100
#define HELPERS 1024

/* User namespaces are nested no deeper (Linux: kernel/user_namespace.c, create_user_ns). */
#define DEEPEST 33

/* The kernel's types, as far as they are needed; CO-RE finds the fields' real offsets. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	__u32 inum;
};
typedef struct {
	__u32 val;
} kuid_t;
struct user_namespace {
	struct user_namespace *parent;
	int level;
	kuid_t owner;
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
struct bpf_map {
	enum bpf_map_type map_type;
	char name[NAME];
};
struct bpf_prog_aux {
	struct bpf_token *token;
	char name[NAME];
};
struct bpf_prog {
	__u32 len;
	enum bpf_prog_type type;
	struct bpf_prog_aux *aux;
	struct bpf_insn insnsi[0];
};
struct pt_regs {
};
struct task_struct {
};
#pragma clang attribute pop

/* Why something is refused, and what `what` means then. */
enum reason {
	KFUNC = 1,	/* the BTF id of a kernel function that isn't listed for the type */
	MODULE,		/* the same, in a module */
	HELPER,		/* the number of a helper that is closed for the type */
	VARIABLE,	/* the BTF id of a kernel variable */
	TYPE,		/* the type of the program, which isn't listed */
	CAPABILITY,	/* the capability */
	TOKENS,		/* how many tokens the user namespace has */
	MAP,		/* the type of the map, which isn't listed */
	UNREADABLE,	/* 0: the instructions couldn't be read */
	INSTRUCTION,	/* the code of an instruction that is unknown, or is closed */
	LOAD,		/* the code of a load that the verifier doesn't trust */
	PERFMON,	/* the number of a helper that takes CAP_PERFMON: the guard lets the program
			   pass, and the verifier refuses it if it can reach that call */
};

struct refusal {
	__u64 number;	/* counts all refusals, so that a reader sees how many it has missed */
	__u64 time;	/* CLOCK_BOOTTIME, in nanoseconds */
	__u32 space;	/* the user namespace's inode number */
	__u32 uid;	/* the host's id */
	__u32 pid;	/* the host's id */
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
	__u64 refusals;
	struct refusal last[LAST];
};

/* Who has a token: `user` is the key in `users` that it is counted for. */
struct held {
	__u32 space;
	__u32 padding;
	__u64 user;
};

struct user {
	__u32 tokens;
	__u32 padding;
	__u64 queued;	/* when a record was last put into the queue */
};

struct config {
	__u32 version;
	__u32 unused;
	__u64 types;		/* a bit for each type of program that a confined token loads */
	__u64 perfmon;		/* a bit for each type that takes CAP_PERFMON, for the records */
	__u64 map_types;	/* a bit for each type of map that a confined token makes */
	__u64 capabilities;	/* a bit for each capability that counts */
	__u32 command_at;	/* where a system call's first two arguments are in struct pt_regs, */
	__u32 attr_at;		/* or both 0 if that isn't known */
	__u32 programs[6];	/* the ids of the programs below, in their order */
	__u32 maps[2];		/* the ids of `marks` and `tokens` */
	__u32 loads;		/* a bit for each mode of loads (code >> 5) that is refused */
	__u32 padding;
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
	__type(value, struct held);
} tokens SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct space);
} spaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct user);
} users SEC(".maps");

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

/* By the number of a helper: a bit for each type of program that may not call it, or that needs
   CAP_PERFMON for calling it. */
struct helper {
	__u64 closed;
	__u64 perfmon;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, HELPERS);
	__type(key, __u32);
	__type(value, struct helper);
} helpers SEC(".maps");

/* An empty space, which is too large for the stack. */
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
	/* Another CPU may be the first to make it. */
	bpf_map_update_elem(&spaces, &inum, empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&spaces, &inum);
}

static struct user *user_of(__u64 key)
{
	struct user *user = bpf_map_lookup_elem(&users, &key);
	struct user empty = {};

	if (user)
		return user;
	bpf_map_update_elem(&users, &key, &empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&users, &key);
}

/*
 * The key in `users` under which a token in this user namespace is counted: the user who made the
 * outermost one around it, since one user can make many.  If that is root, it is this namespace's
 * inode number, since root's engines make namespaces for containers that have nothing in common.
 */
static __u64 whose(struct user_namespace *space)
{
	struct user_namespace *outermost = space;
	int i;

	for (i = 0; i < DEEPEST && outermost->level > 1; i++)
		outermost = outermost->parent;
	if (outermost->owner.val)
		return 1ULL << 32 | outermost->owner.val;
	return space->ns.inum;
}

/* Keep a record of a refusal.  It is a refusal all the same if the record can't be kept. */
static void keep(struct held *held, struct refusal *refusal)
{
	struct space *space = space_of(held->space);
	struct user *user = user_of(held->user);
	__u64 *number = bpf_map_lookup_elem(&numbers, &zero);
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 at;

	if (!space || !user || !number)
		return;
	refusal->number = __sync_fetch_and_add(number, 1) + 1;
	refusal->time = now;
	refusal->space = held->space;
	refusal->uid = bpf_get_current_uid_gid();
	refusal->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(refusal->command, sizeof(refusal->command));
	at = __sync_fetch_and_add(&space->refusals, 1);
	__builtin_memcpy(&space->last[at % LAST], refusal, sizeof(*refusal));
	/* The pace keeps one user from quickly pushing all other users' records out of the queue. */
	if (user->queued && now - user->queued < PACE)
		return;
	user->queued = now;
	bpf_map_push_elem(&events, refusal, BPF_EXIST);
}

/* Who has a confined token; 0 for any other token. */
static struct held *confined(struct bpf_token *token)
{
	__u64 key = (__u64)token;

	return token ? bpf_map_lookup_elem(&tokens, &key) : 0;
}

SEC("lsm/bpf_token_create")
int token_create(unsigned long long *ctx)
{
	struct bpf_token *token = (void *)ctx[0];
	struct path *path = (void *)ctx[2];
	struct inode *inode = path->dentry->d_inode;
	__u64 key = (__u64)token;
	struct refusal refusal = {};
	struct held held = {};
	struct user *user;

	if (!inode || !bpf_inode_storage_get(&marks, inode, 0, 0)) {
		/* A token at this address may have been freed while no guard was in force. */
		bpf_map_delete_elem(&tokens, &key);
		return 0;
	}
	held.space = token->userns->ns.inum;
	held.user = whose(token->userns);
	/* While one guard replaces another both see this: the one that inserts it counts it. */
	if (bpf_map_lookup_elem(&tokens, &key) &&
	    !bpf_map_update_elem(&tokens, &key, &held, BPF_EXIST))
		return 0;
	user = user_of(held.user);
	if (user && user->tokens < TOKENS_OF_USER &&
	    !bpf_map_update_elem(&tokens, &key, &held, BPF_NOEXIST)) {
		__sync_fetch_and_add(&user->tokens, 1);
		return 0;
	}
	refusal.reason = TOKENS;
	refusal.type = NO_TYPE;
	refusal.what = user ? user->tokens : 0;
	keep(&held, &refusal);
	return -EPERM;
}

SEC("lsm/bpf_token_free")
int token_free(unsigned long long *ctx)
{
	__u64 key = ctx[0], owner;
	struct held *held = bpf_map_lookup_elem(&tokens, &key);
	struct user *user;

	if (!held)
		return 0;
	owner = held->user;
	/* While one guard replaces another both see this: the one that removes it counts it. */
	if (bpf_map_delete_elem(&tokens, &key))
		return 0;
	user = bpf_map_lookup_elem(&users, &owner);
	/* The LRU map may have dropped the user for busier ones; then counting begins at 0. */
	if (user && user->tokens)
		__sync_fetch_and_add(&user->tokens, -1);
	return 0;
}

/*
 * Describe a program that is refused for lack of the capability; returns 0 if none is.  The
 * verifier asks for it too, many times, and goes on without it.  So only programs of types that
 * take CAP_PERFMON are described, as the attributes of the command tell.  These are the user's
 * memory, and so are good enough for a record, and for nothing else.
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
	if (refusal->type >= BITS || !(config->perfmon >> refusal->type & 1))
		return 0;
	attr += __builtin_offsetof(union bpf_attr, prog_name);
	bpf_probe_read_user(refusal->program, sizeof(refusal->program), (void *)attr);
	refusal->program[NAME - 1] = 0;
	return 1;
}

SEC("lsm/bpf_token_capable")
int token_capable(unsigned long long *ctx)
{
	struct config *rules = bpf_map_lookup_elem(&config, &zero);
	__u32 capability = ctx[1];
	struct refusal refusal = {};
	struct held *held;

	/* The listed capabilities are asked for most, and need no search for the token. */
	if (rules && capability < BITS && rules->capabilities >> capability & 1)
		return 0;
	held = confined((void *)ctx[0]);
	if (!held)
		return 0;
	refusal.reason = CAPABILITY;
	refusal.what = capability;
	if (rules && describe(&refusal, rules))
		keep(held, &refusal);
	return -EPERM;
}

SEC("lsm/bpf_map_create")
int map_create(unsigned long long *ctx)
{
	struct bpf_map *map = (void *)ctx[0];
	struct held *held = confined((void *)ctx[2]);
	struct refusal refusal = {};
	struct config *rules;

	if (!held)
		return 0;
	rules = bpf_map_lookup_elem(&config, &zero);
	refusal.what = map->map_type;
	if (rules && refusal.what < BITS && rules->map_types >> refusal.what & 1)
		return 0;
	refusal.reason = MAP;
	refusal.type = NO_TYPE;
	bpf_probe_read_kernel(refusal.program, sizeof(refusal.program), map->name);
	keep(held, &refusal);
	return -EPERM;
}

struct scan {
	const struct bpf_insn *insns;
	__u32 len;
	__u32 type;
	__u32 loads;
	__u32 first;	/* the index of the chunk's first instruction */
	__u32 seen;	/* chunks */
	__u32 padding;
	struct refusal *refusal;
	__u64 chunk[CHUNK + 1];
};

/* Whether the kernel function with this BTF id is listed for programs of this type. */
static int listed(__u32 kfunc, __u32 type)
{
	__u64 *mask = bpf_map_lookup_elem(&kfuncs, &kfunc);

	return mask && *mask >> type & 1;
}

/* What is wrong with a call, or 0 if nothing is. */
static enum reason judge_call(__u64 insn, __u32 type)
{
	__u8 src = SRC_OF(insn);
	__u32 what = IMM_OF(insn);
	struct helper *helper;

	if (src == BPF_PSEUDO_CALL)
		return 0;
	if (src == BPF_PSEUDO_KFUNC_CALL)
		return OFF_OF(insn) ? MODULE : listed(what, type) ? 0 : KFUNC;
	if (src)
		return INSTRUCTION;
	/* The verifier refuses unknown helpers; libbpf puts such a call where dead code was. */
	helper = bpf_map_lookup_elem(&helpers, &what);
	if (!helper)
		return 0;
	if (helper->closed >> type & 1)
		return HELPER;
	return helper->perfmon >> type & 1 ? PERFMON : 0;
}

/* What is wrong with an instruction that came from the user, given the one `after` it. */
static enum reason judge(__u64 insn, __u64 after, __u32 type)
{
	__u8 code = CODE_OF(insn), src = SRC_OF(insn), class = code & 7;
	__u32 what = IMM_OF(insn);

	if (code == CALL)
		return judge_call(insn, type);
	if (code == LOAD_IMM64) {
		if (src > BPF_PSEUDO_MAP_IDX_VALUE)
			return INSTRUCTION;
		if (src != BPF_PSEUDO_BTF_ID)
			return 0;
		/* bpf_ksym_exists() of a listed function gives an address, with a size of 0. */
		return IMM_OF(after) || !listed(what, type) ? VARIABLE : 0;
	}
	if ((code & 0xf0) == BPF_CALL && (class == BPF_JMP || class == BPF_JMP32))
		return INSTRUCTION;
	return (code & ATOMIC_MASK) == ATOMIC && what == LOAD_ACQUIRE ? INSTRUCTION : 0;
}

/* Whether an instruction has to be judged at all: most don't. */
static int matters(__u8 code)
{
	return code == LOAD_IMM64 || (code & 0xf0) == BPF_CALL || (code & ATOMIC_MASK) == ATOMIC;
}

/* Look at one instruction of the chunk; 1 ends the loop. */
static long look_at(__u32 i, struct scan *scan)
{
	__u64 insn = scan->chunk[i % CHUNK];
	__u8 code = CODE_OF(insn);
	enum reason found;

	if (scan->loads) {
		if ((code & 7) != BPF_LDX || !(scan->loads >> (code >> 5) & 1))
			return 0;
		found = LOAD;
	} else {
		if (!matters(code))
			return 0;
		found = judge(insn, scan->chunk[i % CHUNK + 1], scan->type);
	}
	/* A mere warning is recorded only once, and only if nothing is refused. */
	if (!found || (found == PERFMON && scan->refusal->reason))
		return 0;
	scan->refusal->reason = found;
	scan->refusal->what = found == LOAD || found == INSTRUCTION ? code : IMM_OF(insn);
	scan->refusal->insn = scan->first + i;
	return found != PERFMON;
}

static long look_at_chunk(__u32 chunk, struct scan *scan)
{
	__u32 count;

	scan->first = chunk * CHUNK;
	if (scan->first >= scan->len)
		return 1;
	/* One more than is looked at, because a load of an address takes two instructions. */
	count = scan->len - scan->first;
	if (count > CHUNK + 1)
		count = CHUNK + 1;
	if (bpf_probe_read_kernel(scan->chunk, count * sizeof(scan->chunk[0]),
				  scan->insns + scan->first))
		return 1;
	bpf_loop(count > CHUNK ? CHUNK : count, look_at, scan, 0);
	scan->seen++;
	return scan->refusal->reason && scan->refusal->reason != PERFMON;
}

/* Look at all instructions, and record what is wrong; 0 if nothing is refused. */
static int look_through(struct bpf_prog *prog, struct held *held, struct refusal *refusal,
			__u32 loads)
{
	struct scan scan = {
		.insns = &prog->insnsi[0],
		.len = prog->len,
		.type = prog->type & (BITS - 1),
		.loads = loads,
		.refusal = refusal,
	};
	__u32 chunks = (scan.len + CHUNK - 1) / CHUNK;

	bpf_loop(chunks, look_at_chunk, &scan, 0);
	if ((!refusal->reason || refusal->reason == PERFMON) && scan.seen != chunks)
		refusal->reason = UNREADABLE;
	if (!refusal->reason)
		return 0;
	bpf_probe_read_kernel(refusal->program, sizeof(refusal->program), prog->aux->name);
	keep(held, refusal);
	return refusal->reason == PERFMON ? 0 : -EPERM;
}

SEC("lsm/bpf_prog_load")
int prog_load(unsigned long long *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	struct held *held = confined(prog->aux->token);
	struct refusal refusal = {};
	struct config *rules;

	if (!held)
		return 0;
	rules = bpf_map_lookup_elem(&config, &zero);
	refusal.type = prog->type;
	if (rules && refusal.type < BITS && rules->types >> refusal.type & 1)
		return look_through(prog, held, &refusal, 0);
	refusal.reason = TYPE;
	refusal.what = refusal.type;
	bpf_probe_read_kernel(refusal.program, sizeof(refusal.program), prog->aux->name);
	keep(held, &refusal);
	return -EPERM;
}

SEC("lsm/bpf_prog")
int prog(unsigned long long *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	struct held *held = confined(prog->aux->token);
	struct refusal refusal = {};
	struct config *rules;

	if (!held)
		return 0;
	rules = bpf_map_lookup_elem(&config, &zero);
	if (!rules || !rules->loads)
		return -EPERM;
	refusal.type = prog->type;
	return look_through(prog, held, &refusal, rules->loads);
}

char LICENSE[] SEC("license") = "GPL";

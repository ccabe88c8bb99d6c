/*
 * The floor: what the hook's work costs without an interpreter.
 *
 * It makes the same system calls in the same order as the hook for one request, and checks
 * nothing but that they succeed.  It is a yardstick for tests/bench and not an alternative:
 * whatever the hook is for (understanding the annotations, finding the kernel's names,
 * refusing, messages, a hostile container) is left out.
 *
 *   floor PID ROOT PATH CMDS MAPS PROGS ATTACHS < state
 *
 * PID is a process of the container, ROOT its root filesystem before the pivot, PATH the
 * target directory relative to that, the rest masks as the kernel takes them (0x7).
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The libc's own <sys/mount.h> has wrappers since 2.36, and collides with <linux/mount.h>. */
static long check(long result, const char *call)
{
	if (result < 0)
		err(1, "%s", call);
	return result;
}

static int open_beneath(int directory, const char *path, unsigned long resolve)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = resolve | RESOLVE_NO_MAGICLINKS,
	};

	return (int)check(syscall(SYS_openat2, directory, path, &how, sizeof(how)), "openat2");
}

static int open_namespace(const char *pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/ns/%s", pid, name);
	return (int)check(open(path, O_RDONLY | O_CLOEXEC), path);
}

union ancillary {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

static void send_fd(int sock, int fd)
{
	union ancillary ancillary = { 0 };
	char byte = 'f';
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &ancillary,
		.msg_controllen = sizeof(ancillary),
	};

	ancillary.header.cmsg_level = SOL_SOCKET;
	ancillary.header.cmsg_type = SCM_RIGHTS;
	ancillary.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&ancillary.header), &fd, sizeof(fd));
	check(sendmsg(sock, &message, 0), "sendmsg");
}

static int receive_fd(int sock)
{
	union ancillary ancillary = { 0 };
	char byte;
	int fd;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &ancillary,
		.msg_controllen = sizeof(ancillary),
	};

	if (check(recvmsg(sock, &message, MSG_CMSG_CLOEXEC), "recvmsg") != 1 ||
	    message.msg_controllen < CMSG_LEN(sizeof(int)))
		errx(1, "no filesystem context came from the child");
	memcpy(&fd, CMSG_DATA(&ancillary.header), sizeof(fd));
	return fd;
}

static void expect(int sock, char wanted)
{
	char byte;

	if (check(recv(sock, &byte, 1, 0), "recv") != 1 || byte != wanted)
		errx(1, "the other half has gone");
}

static void container_half(int sock, int mnt, int user, const char *root, const char *path)
{
	int root_fd, target, context, mount;

	check(prctl(PR_SET_DUMPABLE, 0), "prctl");
	check(setgroups(0, NULL), "setgroups");
	check(setns(mnt, CLONE_NEWNS), "setns");
	root_fd = open_beneath(AT_FDCWD, root, 0);
	check(setns(user, CLONE_NEWUSER), "setns");
	check(setresgid(0, 0, 0), "setresgid");
	check(setresuid(0, 0, 0), "setresuid");
	check(prctl(PR_SET_DUMPABLE, 0), "prctl");
	check(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	target = open_beneath(root_fd, path, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
	context = (int)check(syscall(SYS_fsopen, "bpf", FSOPEN_CLOEXEC), "fsopen");
	send_fd(sock, context);
	expect(sock, 'c');
	mount = (int)check(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
				   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC),
			   "fsmount");
	check(syscall(SYS_move_mount, mount, "", target, "",
		      MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
	      "move_mount");
	check(send(sock, "m", 1, 0), "send");
	expect(sock, 'k');
	_exit(0);
}

static void set(int context, unsigned int command, const char *key, const char *value)
{
	check(syscall(SYS_fsconfig, context, command, key, value, 0), key ? key : "create");
}

/* Whether the process sees a bpffs that delegates; its whole table is read, as the hook does. */
static int delegated(pid_t child)
{
	char path[64], line[8192];
	int found = 0;
	FILE *table;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)child);
	table = fopen(path, "re");
	if (!table)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), table))
		if (strstr(line, " - bpf ") && strstr(line, "delegate_cmds="))
			found = 1;
	fclose(table);
	return found;
}

static void host_half(int sock, pid_t child, char **masks)
{
	static const char *const options[] = {
		"delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs",
	};
	int context = receive_fd(sock);

	set(context, FSCONFIG_SET_STRING, "source", "bpf");
	set(context, FSCONFIG_SET_STRING, "mode", "1777");
	for (int i = 0; i < 4; i++)
		set(context, FSCONFIG_SET_STRING, options[i], masks[i]);
	set(context, FSCONFIG_CMD_CREATE, NULL, NULL);
	check(send(sock, "c", 1, 0), "send");
	expect(sock, 'm');
	if (!delegated(child))
		errx(1, "the mount delegates nothing");
	check(send(sock, "k", 1, 0), "send");
}

int main(int argc, char **argv)
{
	int mnt, user, sockets[2], status = 1;
	char state[1 << 16];
	pid_t child;

	if (argc != 8)
		errx(2, "usage: floor PID ROOT PATH CMDS MAPS PROGS ATTACHS < state");
	while (check(read(0, state, sizeof(state)), "read") > 0)
		;
	mnt = open_namespace(argv[1], "mnt");
	user = open_namespace(argv[1], "user");
	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), "socketpair");
	child = (pid_t)check(fork(), "fork");
	if (child == 0) {
		close(sockets[0]);
		container_half(sockets[1], mnt, user, argv[2], argv[3]);
	}
	close(sockets[1]);
	host_half(sockets[0], child, argv + 4);
	check(waitpid(child, &status, 0), "waitpid");
	return status ? 1 : 0;
}

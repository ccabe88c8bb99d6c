/*
 * Prints the peak resident memory, in KiB, of a command and of the children it has waited for:
 * that of the largest of them, which is what wait4(2) tells.
 *
 *   peak COMMAND [ARGUMENT]...
 *
 * The benchmark can't ask for this itself.  A process inherits the peak of the memory it leaves
 * behind at execve(2), and posix_spawn(3) execs from its parent's: so every child of a large
 * Python would seem as large as that.  This program is small and forks.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage usage;
	int status, null;
	pid_t child;

	if (argc < 2)
		errx(2, "usage: peak COMMAND [ARGUMENT]...");
	child = fork();
	if (child < 0)
		err(1, "fork");
	if (child == 0) {
		/* The number alone goes to standard output. */
		null = open("/dev/null", O_WRONLY);
		if (null < 0 || dup2(null, 1) < 0)
			err(126, "/dev/null");
		execv(argv[1], argv + 1);
		err(127, "%s", argv[1]);
	}
	if (wait4(child, &status, 0, &usage) < 0)
		err(1, "wait4");
	printf("%ld\n", usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

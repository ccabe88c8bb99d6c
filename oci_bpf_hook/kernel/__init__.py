"""The running kernel: its system calls, its names, its mounts and seccomp filters."""

"""The running kernel: its system calls, its names for BPF, its mounts and its seccomp filters."""

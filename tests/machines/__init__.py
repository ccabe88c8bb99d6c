"""Virtual machines on Debian's kernels, for what the kernel below the tests can't show."""

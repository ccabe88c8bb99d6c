"""The hook: an OCI state on standard input, a delegated bpffs in the container."""

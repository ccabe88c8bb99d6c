"""What `oci-bpf-hook` does for people: one module for each command."""

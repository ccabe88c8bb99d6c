"""What `oci-bpf-hook` does for people: a module a command, imported when it is called."""

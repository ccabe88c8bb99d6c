"""The commands of `oci-bpf-hook`, each in a module of its name."""

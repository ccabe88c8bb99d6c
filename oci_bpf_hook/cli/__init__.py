"""The command `oci-bpf-hook`: its parser, its manual pages and its completions."""

"""Which delegation a BPF program needs, learned from the calls that it made."""

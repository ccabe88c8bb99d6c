"""Which delegation a BPF program needs, read from its object files."""

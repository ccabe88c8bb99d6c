"""Which delegation a BPF program needs: read off its object files, or off what it did."""

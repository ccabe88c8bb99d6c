"""The guard: BPF LSM programs that limit what a confined token may do, and what loads them."""

"""The guard: BPF LSM programs that hold what a confined token may do, and what loads them."""

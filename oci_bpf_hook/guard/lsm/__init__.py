"""The guard: BPF LSM programs that confine what marked tokens may do, and what loads them."""

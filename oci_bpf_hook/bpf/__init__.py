"""What BPF delegation is made of: the kernel's names, their bits, and how far each reaches."""

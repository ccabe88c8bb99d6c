"""What a program asks of bpf(2), watched while it runs, and the delegation that comes of it."""

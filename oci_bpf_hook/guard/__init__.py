"""Whether the guard is in force, and the mark by which it knows a confined bpffs."""

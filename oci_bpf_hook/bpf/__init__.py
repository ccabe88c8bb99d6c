"""The kernel's names for commands, map, program and attach types, their bits and their reach."""

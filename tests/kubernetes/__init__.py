"""The NRI plugin with a real containerd, by CRI: `python -m tests.kubernetes` runs it."""

"""The NRI plugin: containerd or CRI-O asks it about each new container, and it delegates."""

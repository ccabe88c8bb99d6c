"""The two halves that mount: the host's, and a child inside the container's namespaces."""

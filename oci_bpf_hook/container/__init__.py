"""A container that is about to start: its namespaces, its image and podman's word for it."""

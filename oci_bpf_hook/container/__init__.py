"""A container that is about to start: its namespaces, its image, and the name podman gave it."""

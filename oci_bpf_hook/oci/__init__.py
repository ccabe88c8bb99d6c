"""OCI's files: the state that a hook gets, config.json, CDI devices, and seccomp profiles."""

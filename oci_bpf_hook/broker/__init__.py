"""The broker: root's small service that delegates for rootless engines."""

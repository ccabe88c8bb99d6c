"""oci-bpf-hook: BPF tokens for OCI containers, through annotations.

This file holds the version and nothing else: the hook imports the package before
every container starts, so whatever is added here makes every start slower.
"""

__version__ = "0.1.0.dev0"

"""oci-bpf-hook: BPF tokens for OCI containers, through annotations.

This file holds the version and nothing else: the hook imports the package in
front of every container start, so nothing here may cost anything.
"""

__version__ = "0.1.0.dev0"

"""Subjects of which a test says what it is about, and nothing else."""

from typing import Any

from oci_bpf_hook.policy.subject import Subject, unnamed

# No user has that id.
NOBODY = -1
_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("cdi", "container", "engine", "image", "namespace", "pod")),
    **dict.fromkeys(("host_cgroup", "host_network")),
    "annotations": {},
    "claimed": frozenset(),
    "find_name": unnamed,
    "globs": {},
    "group": (),
    "rootless": False,
    "user": NOBODY,
}


def subject(**fields: Any) -> Subject:
    """The one with these `fields`, of whom nothing else is known."""
    return Subject(**{**_UNKNOWN, **fields})

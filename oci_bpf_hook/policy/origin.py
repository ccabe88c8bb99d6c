"""Who sets each attribute of a Subject: the administrator, the kernel, the engine or the requester.

A rule can rely on an attribute only as far as on the one who has set it.
"""

from .subject import SET_BY, Subject

ADMINISTRATOR = "administrator"
KERNEL = "kernel"
ENGINE = "engine"
REQUESTER = "requester"

# These are all true for a container of a user's own engine (`subject.make_subject`).
OF_USERS = ("host_cgroup", "host_network", "rootless")
_FROM_KERNEL = ("group", "user", *OF_USERS)


def origin(attribute: str, engine: str | None) -> str:
    """Who sets `attribute` if `engine` runs the hook: ADMINISTRATOR, KERNEL, ..."""
    if attribute in ("cdi", "engine"):
        return ADMINISTRATOR
    if attribute in _FROM_KERNEL:
        return KERNEL
    if engine and attribute in SET_BY[engine]:
        return ENGINE
    if engine == "podman" and attribute == "container":
        return ENGINE
    return REQUESTER


def set_by(subject: Subject, attribute: str) -> str:
    """Who has set the `attribute` of `subject`: ADMINISTRATOR, KERNEL, ENGINE or REQUESTER.

    No engine tells the broker anything, so what engines set is only the client's claim there.
    """
    who = origin(attribute, subject.engine)
    return REQUESTER if subject.by_broker() and who == ENGINE else who

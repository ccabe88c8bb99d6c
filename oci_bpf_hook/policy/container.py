"""The type of a container as the policy sees it: what has to be found out about it."""

from typing import Protocol


class Container(Protocol):
    """What a Subject needs to know of a container that exists or is only proposed."""

    def owner(self) -> int:
        """The user who made its user namespace, by the host's ids."""

    def has_host_network(self) -> bool:
        """Whether its network namespace isn't its own."""

    def sees_host_cgroups(self, root: str | None) -> bool:
        """Whether it sees more of the cgroup tree than its own part."""

"""Describes a container of podman's that doesn't exist yet, from its configuration.

A Proposed has the methods that the policy needs of a Container.  They rely on the configuration
alone, which is enough to foresee the grant: the hook that grants later looks at the container
itself.
"""

import posix

from ..errors import BAD_STATE, NO_USER_NAMESPACE, HookError, quote
from ..files import REGULAR, kind_of
from .images import stored
from .namespaces import is_initial, owner_of, user_namespace_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

_CGROUPS = "/sys/fs/cgroup"
_OPEN = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
# podman's own file among the mounts: RUNROOT/DRIVER-containers/ID/userdata/.containerenv.
_MARK = "/run/.containerenv"


class Proposed:
    """What the decoded config.json `config` will make, to be used in a `with`.

    If `config` isn't a configuration, methods raise HookError (BAD_STATE), AttributeError, KeyError
    or TypeError.
    """

    def __init__(self, config: "Mapping[str, Any]") -> None:
        """Open the user namespace that it is to join, if that exists already.

        Raises HookError (NO_USER_NAMESPACE) if it has no user namespace of its own.
        """
        self._config = config
        self._user = -1
        kinds = list(self._namespaces("user"))
        if len(kinds) != 1:
            raise _no_user_namespace()
        if path := kinds[0]:
            self._user = _open(path)
            try:
                initial = is_initial(self._user)
                self._owner = owner_of(self._user)
            except OSError:
                self.close()
                raise _odd(
                    f"the path of the user namespace, {quote(path)}, leads to something else"
                ) from None
            if initial:
                self.close()
                raise _no_user_namespace()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the fd."""
        if self._user >= 0:
            posix.close(self._user)
            self._user = -1

    def owner(self) -> int:
        """The user, by the host's ids, who has made its user namespace, or will make it."""
        return posix.geteuid() if self._user < 0 else self._owner

    def has_host_network(self) -> bool:
        """Whether its network namespace belongs to another user namespace than its own."""
        kinds = list(self._namespaces("network"))
        if len(kinds) != 1:
            return True
        if not kinds[0]:
            # The runtime makes it in the container's user namespace.
            return False
        if self._user < 0:
            return True
        network = _open(kinds[0])
        try:
            status = posix.fstat(self._user)
            return user_namespace_of(network) != (status.st_dev, status.st_ino)
        except PermissionError:
            return True
        except OSError:
            raise _odd(
                f"the path of the network namespace, {quote(kinds[0])}, leads to something else"
            ) from None
        finally:
            posix.close(network)

    def sees_host_cgroups(self, root: str | None) -> bool:
        """Whether it will see more of the cgroup tree than its own part, wherever its `root` is."""
        if list(self._namespaces("cgroup")) != [None]:
            return True
        sources = (mount["source"] for mount in self._mounts() if _is_bind(mount))
        return any(
            f"{_CGROUPS}/".startswith(f"{source.rstrip('/')}/") or source.startswith(f"{_CGROUPS}/")
            for source in sources
        )

    def _namespaces(self, kind: str) -> "Iterator[str | None]":
        """Each namespace of that `kind`: the path of one that exists, None for a new one."""
        for one in self._config["linux"]["namespaces"]:
            if one["type"] == kind:
                yield one.get("path")

    def _mounts(self) -> "list[dict[str, Any]]":
        mounts: list[dict[str, Any]] = self._config.get("mounts") or []
        return mounts


def identity(config: "Mapping[str, Any]") -> str:
    """The id that podman gave the container of the decoded config.json `config`, or "?"."""
    for mount in config.get("mounts") or []:
        if mount.get("destination") == _MARK:
            parts = str(mount.get("source")).split("/")
            return parts[-3] if len(parts) > 3 else "?"
    return "?"


def name(config: "Mapping[str, Any]") -> str | None:
    """The name that podman's storage has for the container of `config`; None if that can't be told.

    No annotation has it, and the process that knows it, conmon, doesn't run yet.
    """
    try:
        found = stored(identity(config), str(config["root"]["path"]))
        return str(found[1]["names"][0]) if found else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _is_bind(mount: "Mapping[str, Any]") -> bool:
    return mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(
        mount.get("options") or ()
    )


def _open(path: str) -> int:
    try:
        # Opening a device may have effects, and opening a pipe may never end.
        if kind_of(posix.stat(path)) != REGULAR:
            raise ValueError("not a namespace")
        return posix.open(path, _OPEN)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _odd(f"the namespace {quote(path)} can't be opened ({why})") from None


def _odd(what: str) -> HookError:
    return HookError(BAD_STATE, f"in the configuration on stdin {what}")


def _no_user_namespace() -> HookError:
    return HookError(
        NO_USER_NAMESPACE,
        "the container has no user namespace of its own: BPF tokens exist only in one, and without "
        "one CAP_BPF would hold on the host; add --userns=auto or --uidmap",
    )

"""Whether a container can have the shim: the library is here, and its image can load it.

The image is anybody's.  Nothing in it is run or read, and its links are followed in it alone.
"""

import posix

from ..errors import BAD_STATE, HookError, Problem, quote
from ..files import REGULAR, kind_of
from ..kernel import syscalls
from ..oci.cdi import PLACE
from ..oci.state import mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..container.namespaces import Process
    from ..oci.state import Rootfs

# Where programs expect the loaders of glibc and musl, by which a library is preloaded.
_LOADERS = {
    "x86_64": ("lib64/ld-linux-x86-64.so.2", "lib/ld-musl-x86_64.so.1"),
    "aarch64": ("lib/ld-linux-aarch64.so.1", "lib/ld-musl-aarch64.so.1"),
}
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def name() -> str:
    """The name of the library's file for this machine.  Raises HookError (BAD_STATE)."""
    machine = posix.uname().machine
    if machine not in _LOADERS:
        raise _cannot(f"there is none for {machine}")
    return f"libbpf-token-shim.{machine}.so"


def library(package: str) -> str:
    """The path of the library in the `package`'s directory.  Raises HookError (BAD_STATE)."""
    path = f"{package}/shim/{name()}"
    try:
        posix.stat(path)
    except OSError as error:
        raise _cannot(
            f"{path}: {error.strerror}", "run make shim and install again, or install a package"
        ) from None
    return path


def of_config(config: "Mapping[str, Any]", root: str, package: str) -> str:
    """The library in the `package`'s directory, for the container of the config.json `config`.

    `root` is the path of its root filesystem.  Raises HookError (BAD_STATE).
    """
    found = library(package)
    loadable(root, mounted(config.get("mounts")))
    return found


def loadable(root: str, mounts: "Iterable[str]") -> None:
    """Refuse the image at `root` if it has no loader.

    What lies below one of the container's other mounts, at `mounts`, can't be told, and is taken to
    be there.  Raises HookError (BAD_STATE).
    """
    name()
    loaders = _LOADERS[posix.uname().machine]
    above = [f"{path.strip('/')}/" for path in mounts]
    if any(f"{path}/".startswith(one) for path in loaders for one in above if one != "/"):
        return
    try:
        top = posix.open(root, _DIRECTORY)
    except OSError as error:
        raise _cannot(f"{quote(root)}: {error.strerror}") from None
    try:
        if any(_is_file(top, path) for path in loaders):
            return
    finally:
        posix.close(top)
    raise _cannot(
        "the image has no loader of glibc or musl for this machine "
        f"({' or '.join(f'/{path}' for path in loaders)}), so no library can be preloaded"
    )


def _is_file(top: int, path: str) -> bool:
    try:
        fd = syscalls.openat2(top, path.encode(), posix.O_PATH | posix.O_CLOEXEC, _RESOLVE)
    except OSError:
        return False
    try:
        return kind_of(posix.fstat(fd)) == REGULAR
    finally:
        posix.close(fd)


def unchangeable(container: "Process") -> None:
    """Refuse the shim to a `container` whose user namespace maps the host's root.

    The library is root's file, and all containers with the shim have the same.  That it is mounted
    read-only doesn't keep the root of such a container from changing it, because a runtime may make
    the mount within the container's user namespace, whose root may then mount it again.  Raises
    HookError (BAD_STATE).
    """
    from ..container.nesting import id_map

    # As the lowest id, 0 is the first of its range.
    if any(first == 0 for first, _ in id_map(container, "uid")):
        raise _cannot(
            "its user namespace maps the host's uid 0, so the container could change the library, "
            "which others have too",
            "map other ids (--userns=auto), or leave out io.bpffs.shim",
        )


def check(rootfs: "Rootfs") -> None:
    """Refuse a container that asks for the shim and doesn't have it, or can't load it.

    A hook that runs after the container is made can add neither mounts nor variables to it.  If
    there is no configuration to look at, nothing is refused.  Raises HookError (BAD_STATE).
    """
    if rootfs.preload is None:
        return
    added(rootfs.preload, rootfs.mounted)
    loadable(rootfs.path, rootfs.mounted)


def added(preload: str, mounts: "Iterable[str]") -> None:
    """Refuse a container to which nobody has added the shim.

    `preload` is the container's LD_PRELOAD, and `mounts` are where it has mounts of its own.
    Raises HookError (BAD_STATE).
    """
    if PLACE not in preload.replace(":", " ").split() or PLACE not in mounts:
        raise _cannot(
            "nothing has added it to the container",
            "that takes podman's stage precreate (oci-bpf-hook install --precreate), a CDI device "
            "(oci-bpf-hook cdi generate --shim) or oci-bpf-hook inject",
        )


def _cannot(why: str, hint: str = "leave out io.bpffs.shim") -> HookError:
    text = f"the container can't have the shim: {why}"
    return HookError(BAD_STATE, Problem(text, key="shim", item="true", hint=hint))

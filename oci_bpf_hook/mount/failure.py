"""Says why a half failed, in sentences for people.

A half reports its step and the kernel's error; this module says what is wrong and what to do.  It
is imported only once a half has failed.
"""

import posix
from errno import EACCES, EINVAL, ELOOP, ENODEV, ENOSYS, ENOTDIR, EPERM, EROFS

from ..errors import (
    BAD_STATE,
    KERNEL_CANNOT,
    MOUNT_FAILED,
    NO_BROKER,
    NO_USER_NAMESPACE,
    NOT_AS_GRANTED,
    HookError,
    Problem,
    quote,
)
from . import container_half

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SAYS = "journalctl -u oci-bpf-hook-broker says what the broker did"
# The capabilities that a half's steps need besides uid 0.
_CAPABILITIES = {
    "setgroups": "CAP_SETGID",
    "join": "CAP_SYS_ADMIN and CAP_SYS_CHROOT",
    "user": "CAP_SYS_ADMIN",
}


def of_call(call: str, error: OSError, context: int) -> HookError:
    """The error that says why `call` on the filesystem `context`, an fd, failed with `error`."""
    reason = f"{call}: {posix.strerror(error.errno or 0)}{_log(context)}"
    # Setting a mask needs the capability.  If the masks were accepted, creating the superblock
    # doesn't fail for lack of it.
    if error.errno == EPERM and call != "fsconfig(create)":
        return _unprivileged(reason)
    if error.errno in (ENOSYS, EINVAL, EPERM):
        return _kernel(reason)
    return HookError(MOUNT_FAILED, f"the bpffs can't be made: {reason}")


def _log(fd: int) -> str:
    """What the kernel has to say about a filesystem context, as the end of a sentence."""
    try:
        return f" ({quote(posix.read(fd, 1024).decode('ascii', 'replace').strip())})"
    except OSError:  # ENODATA: the kernel has nothing to say.
        return ""


def of_message(message: bytes) -> HookError:
    """The error in the container half's `message`, which begins with FAILED."""
    _, number = container_half.FAILURE.unpack_from(message)
    text = message[container_half.FAILURE.size :].decode("utf-8", "backslashreplace")
    step, reason, name = (*text.split("\0"), "", "")[:3]
    where = f" {quote(name)}" if name else ""
    if number == ENOSYS or (number in (EINVAL, ENODEV) and step in ("fsopen", "fsmount")):
        return _kernel(reason)
    if number == EPERM and step in _CAPABILITIES:
        return _unprivileged(reason, _CAPABILITIES[step])
    if number == EINVAL and step == "ids":
        return HookError(
            NO_USER_NAMESPACE,
            "the container's user namespace has no root (uid and gid 0), which has to own the "
            "bpffs; map 0 as well",
        )
    if step == "root":
        return HookError(
            BAD_STATE, f"the container's root filesystem isn't at{where or ' its place'}: {reason}"
        )
    if step == "broker":
        return no_broker(reason)
    if step == "path":
        text = f"the target directory{where}: {_advice(number, reason)}"
        return HookError(MOUNT_FAILED, Problem(text, key="path"))
    return HookError(MOUNT_FAILED, f"the container half failed at {step}{where}: {reason}")


def in_volume(path: bytes, shown: "Sequence[str]") -> HookError:
    """The error for a directory `path` that is missing in a volume.

    `shown` has the volume's mount point from mountinfo, or is empty.  The mount point there may
    begin with the directory in which the reader sees the root filesystem.
    """
    from ..kernel.mountinfo import plain

    target = path.decode("utf-8", "backslashreplace")
    names = target.split("/")
    points = ("/".join(names[:number]) for number in range(len(names), 1, -1))
    seen = plain(shown[0]) if shown else ""
    volume = next((point for point in points if seen.endswith(point)), "/")
    problem = Problem(
        f"the target directory {quote(target)} is missing, and none is made in the volume at "
        f"{quote(volume)}, which may be meant to be read-only",
        key="path",
        item=target,
        hint="make the directory in the volume, or set io.bpffs.path elsewhere",
    )
    return HookError(MOUNT_FAILED, problem)


def in_shared_volume() -> HookError:
    """The error for a directory in a mount that propagates to the host."""
    problem = Problem(
        "the target directory is in a volume that is shared with the host, where the bpffs would "
        "appear too",
        key="path",
        hint="set io.bpffs.path elsewhere, or make the volume rprivate or rslave",
    )
    return HookError(MOUNT_FAILED, problem)


def would_hide(path: str) -> HookError:
    """The error for a `path` at which there is another delegation, which ours would hide."""
    problem = Problem(
        f"the container already has another delegated bpffs at {quote(path)}, from annotations or "
        "another CDI device, and this one would hide it",
        key="path",
        item=path,
        hint="request only one of them, or set another io.bpffs.path",
    )
    return HookError(MOUNT_FAILED, problem)


def _advice(number: int, reason: str) -> str:
    if number == ELOOP:
        return (
            "it is or goes through a symbolic link, and links aren't followed; name the directory "
            "itself"
        )
    if number == ENOTDIR:
        return "it is or goes through something that isn't a directory"
    if number == EACCES and reason.startswith("openat2"):
        return "the container's root may not go there, because of the mode of a directory above it"
    if number in (EACCES, EPERM, EROFS):
        return (
            f"it is missing and can't be made there ({reason}); make it in the image, or set "
            "io.bpffs.path to a directory that is there"
        )
    return reason


def _kernel(reason: str) -> HookError:
    return HookError(
        KERNEL_CANNOT,
        f"this kernel can't delegate BPF: {reason}; it takes Linux 6.9 or later",
    )


def no_broker(reason: str) -> HookError:
    """The error if there is no broker to ask, for this `reason`."""
    return HookError(
        NO_BROKER,
        f"the broker, which delegates BPF for rootless engines, doesn't answer ({reason}); an "
        "administrator starts it with systemctl enable --now oci-bpf-hook-broker.socket",
    )


def busy_broker(seconds: float) -> HookError:
    """The error if a broker is there, and hasn't answered within `seconds`."""
    return HookError(
        NO_BROKER,
        f"the broker runs, but hasn't answered within {seconds:g} seconds, because it or this host "
        f"is too busy; start the container again later, and if that doesn't help, {_SAYS}",
    )


def odd_broker(reason: str) -> HookError:
    """The error if a broker is there, and for this `reason` its answer can't be used."""
    return HookError(
        NO_BROKER,
        f"the broker runs, but its answer can't be used ({reason}); start the container again, "
        f"and if that doesn't help, {_SAYS}",
    )


def _unprivileged(reason: str, capability: str = "CAP_SYS_ADMIN") -> HookError:
    return HookError(
        NO_BROKER,
        f"the hook may not delegate BPF ({reason}): that needs {capability} in the initial user "
        "namespace, which the engine's service lacks",
    )


def not_as_granted(wrong: "Iterable[str]") -> HookError:
    """The error for a mount whose options differ from the grant in the ways of `wrong`."""
    return HookError(
        NOT_AS_GRANTED,
        f"the kernel's mount differs from the grant: {', '.join(wrong)}; Linux before 6.9 "
        "ignores delegation",
    )

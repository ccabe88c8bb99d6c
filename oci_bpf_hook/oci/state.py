"""What the runtime tells a hook: the OCI state on stdin, and the bundle's config.json.

Real runtimes bend the specification: crun may name a wrong bundle, says where the
root filesystem is in a key of its own, and may say so relative to the bundle; a
bundle may be unreadable.  The annotations always come with the state and are taken
from nowhere else.
"""

import posix

from ..errors import BAD_STATE, MOUNT_FAILED, HookError, Problem, quote
from ..text.strict_json import load_json
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

STATE_MAX = 1 << 20
CONFIG_MAX = 4 << 20
# The alphabet of runc's and crun's container ids; an id becomes part of a path.
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_ID_MAX = 1024


class State(Value):
    """The OCI state (runtime-spec, runtime.md); `root` is crun's addition.

    At createContainer the hook is in the container, and the pid None.
    """

    __slots__ = ("annotations", "bundle", "id", "pid", "root", "status")
    id: str
    pid: int | None
    bundle: str
    status: str
    root: str | None
    annotations: dict[str, str]


class Rootfs(Value):
    """Where the root filesystem is in the container's mount namespace, before the pivot.

    `masked` are the paths that the engine covers after the hook, `remounted` those on which it
    changes whatever mount is there, and `version` the configuration's ociVersion, as far as there
    is a configuration.
    """

    __slots__ = ("masked", "path", "remounted", "version")
    path: str
    version: object
    masked: tuple[str, ...]
    remounted: tuple[str, ...]


def read_stdin(what: str = "state", longest: int = STATE_MAX) -> bytes:
    """The whole of standard input; raises HookError (BAD_STATE) if that is over `longest` bytes.

    `what` it is stands in the message.

    It is read to its end in any case: crun before 1.17 fails a hook that closes the
    pipe on it (2c4db997).
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            piece = posix.read(0, 1 << 16)
        except BlockingIOError:
            # The runtime's end of it may be its own; it is for the hook to wait.
            posix.set_blocking(0, True)
            continue
        except OSError as error:
            raise HookError(BAD_STATE, f"the {what} on stdin can't be read: {error}") from None
        if not piece:
            break
        size += len(piece)
        if size <= longest:
            pieces.append(piece)
    if size > longest:
        raise HookError(BAD_STATE, f"the {what} on stdin is {size} bytes; {longest} are the most")
    return b"".join(pieces)


def annotations_of(state: object, what: str = "state") -> dict[str, str]:
    """The annotations of the decoded JSON `state`, {} where there are none.

    Raises HookError (BAD_STATE), which says `what` it is.
    """
    if not isinstance(state, dict):
        raise _bad("is no JSON object", what)
    annotations = state.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise _bad("has annotations that aren't strings", what)
    return annotations


def check(state: object) -> State:
    """The decoded JSON `state` of a container that is about to start.

    Raises HookError (BAD_STATE).
    """
    annotations = annotations_of(state)
    assert isinstance(state, dict)  # annotations_of looked.
    pid, name, status = state.get("pid"), state.get("id"), state.get("status")
    bundle, root = state.get("bundle"), state.get("root")
    if not isinstance(name, str) or not 0 < len(name) <= _ID_MAX or not _ID.issuperset(name):
        raise _bad(f"has the id {quote(str(name))}, which is none")
    if name.strip(".") == "":
        raise _bad(f"has the id {quote(name)}, which is none")
    if type(pid) is not int:
        raise _bad("has no pid")
    if not 0 <= pid < 1 << 31:
        raise _bad(f"has the pid {str(pid)[:24]}, which is none")
    if status not in ("creating", "created"):
        raise _bad(
            f"has the status {quote(str(status))}: register this hook at createRuntime or "
            "createContainer"
        )
    if not _is_path(bundle) or not str(bundle).startswith("/"):
        raise _bad("has no bundle with an absolute path")
    if root is not None and not _is_path(root):
        raise _bad("has a root that is no path")
    return State(
        id=name,
        # crun says 0 and runc 1, at createContainer: the pid as the container sees it.
        pid=pid if pid > 1 else None,
        bundle=bundle,
        status=status,
        root=root,
        annotations=annotations,
    )


def find_rootfs(state: State, *, cwd: str = "/", crun: str = "/run/crun") -> Rootfs:
    """Where `state`'s container has its root filesystem.  Raises HookError (BAD_STATE).

    Asks the bundle's config.json first, then crun's `root`, then the copy of config.json
    that crun keeps below `crun`.  Last comes `cwd`, where the runtime has left the hook: at
    createContainer runc does so in the root filesystem, and its bundle may be unreadable there.
    """
    # crun gives "/" for the bundle of a container with a user namespace and a device.
    if state.bundle == "/":
        reason = 'the bundle is "/" (crun before the fix of its issue 2025, with --device)'
    else:
        config = _config(state.bundle, state)
        if isinstance(config, Rootfs):
            return config
        reason = config
    if state.root is not None and (state.root.startswith("/") or state.bundle != "/"):
        return _rootfs(_join(state.bundle, state.root))
    config = _config(f"{crun}/{state.id}", state)
    if isinstance(config, Rootfs) and not config.path.startswith(f"{crun}/"):
        return config
    if state.pid is None and cwd != "/":
        return _rootfs(cwd)
    raise HookError(BAD_STATE, f"the container's root filesystem can't be found: {reason}")


def _rootfs(path: str) -> Rootfs:
    return Rootfs(path=path, masked=(), remounted=(), version=None)


def _bad(why: str, what: str = "state") -> HookError:
    return HookError(BAD_STATE, f"the {what} on stdin {why}")


def _is_path(value: object) -> "TypeGuard[str]":
    """Whether this can be handed to the kernel as a path: no NUL, no half of a character."""
    return (
        isinstance(value, str)
        and value != ""
        and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
    )


def _join(directory: str, path: str) -> str:
    return path if path.startswith("/") else f"{directory}/{path}"


def _config(directory: str, state: State) -> Rootfs | str:
    """What `directory`/config.json says, or why it can't be believed."""
    from ..files import read_file  # Most containers ask for nothing, and this is for who asks.

    file = f"{directory}/config.json"
    # Whole, since it is where to look; but no line of a log is made by a directory's name.
    path = file if file.isprintable() else ascii(file)
    try:
        config = load_json(read_file(file, CONFIG_MAX))
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError as error:
        return f"{path}: {error}"
    if not isinstance(config, dict):
        return f"{path} is no JSON object"
    # The state was made from this configuration, so every annotation stands in both; a
    # configuration of something else, in a bundle that isn't ours, would not agree.
    # With none, as a CDI device may find it, neither has the key.
    annotations = config.get("annotations")
    if annotations is None:
        annotations = {}
    if not isinstance(annotations, dict) or not state.annotations.items() <= annotations.items():
        return f"{path} has other annotations than the state"
    root = config.get("root")
    if not isinstance(root, dict) or not _is_path(root.get("path")):
        return f"{path} has no root.path"
    linux = config.get("linux")
    masked = linux.get("maskedPaths") if isinstance(linux, dict) else None
    return Rootfs(
        path=_join(directory, root["path"]),
        masked=tuple(str(item) for item in masked) if isinstance(masked, list) else (),
        remounted=remounted(config.get("mounts")),
        version=config.get("ociVersion"),
    )


def remounted(mounts: object) -> tuple[str, ...]:
    """Where runc remounts what is there once the hooks have run, of a configuration's `mounts`.

    A tmpfs that is to be read-only is made writable, and then remounted by its path with the
    flags that it is to have; crun has an fd for that (rootfs_linux.go, finalizeRootfs; 1.1.5).
    """
    return tuple(
        str(mount.get("destination"))
        for mount in (mounts if isinstance(mounts, list) else ())
        if isinstance(mount, dict)
        and mount.get("type") == "tmpfs"
        and isinstance(options := mount.get("options"), list)
        and "ro" in options
    )


def visible(target: str, masked: "Sequence[str]", remounted: "Sequence[str]") -> None:
    """Refuse what the engine will cover: the container would find an empty directory.

    And what it will remount: that takes nosuid, nodev and noexec away, after we have looked.
    """
    for path in masked:
        if f"{target}/".startswith(f"{path.rstrip('/')}/"):
            raise HookError(
                MOUNT_FAILED,
                Problem(
                    f"the target directory {quote(target)} is masked by the engine (maskedPaths "
                    f"has {quote(path)})",
                    key="path",
                    item=target,
                    hint="set io.bpffs.path elsewhere, or unmask it",
                ),
            )
    for path in remounted:
        if [part for part in path.split("/") if part] == target.split("/")[1:]:
            raise HookError(
                MOUNT_FAILED,
                Problem(
                    f"the target directory {quote(target)} is a read-only tmpfs of the "
                    "container's, which the engine remounts after the hook, and the bpffs with it",
                    key="path",
                    item=target,
                    hint="take that mount away, or set io.bpffs.path elsewhere",
                ),
            )

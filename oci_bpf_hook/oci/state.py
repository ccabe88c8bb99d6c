"""Reads what the runtime tells a hook: the OCI state on stdin, and the bundle's config.json.

Runtimes deviate from the specification: crun may name a wrong bundle, and it gives the root
filesystem in a key of its own, as a path that may be relative to the bundle.  A bundle may also be
unreadable.  The annotations are always in the state and are taken only from there.
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

    `pid` is None at createContainer, where the hook itself is in the container.
    """

    __slots__ = ("annotations", "bundle", "id", "pid", "root", "status")
    id: str
    pid: int | None
    bundle: str
    status: str
    root: str | None
    annotations: dict[str, str]


class Rootfs(Value):
    """The path of the root filesystem in the container's mount namespace, before pivot_root(2).

    From the configuration, if it was found, come `masked`, the paths that the engine covers after
    the hook; `remounted`, the paths at which it changes the mount after the hook; `version`, the
    ociVersion; `mounted`, where it has mounts of its own; and `preload`, its LD_PRELOAD, which is
    None if there is no configuration.
    """

    __slots__ = ("masked", "mounted", "path", "preload", "remounted", "version")
    path: str
    version: object
    preload: str | None
    mounted: tuple[str, ...]
    masked: tuple[str, ...]
    remounted: tuple[str, ...]


def read_stdin(what: str = "state", longest: int = STATE_MAX) -> bytes:
    """The whole of standard input, which the message calls `what`.

    It is read to its end even if it is too long, because crun before 1.17 takes a hook that closes
    the pipe early for one that has failed (crun: 2c4db997, "linux: ignore EPIPE for hooks", 1.17).
    Raises HookError (BAD_STATE) if it has more than `longest` bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            piece = posix.read(0, 1 << 16)
        except BlockingIOError:
            # The runtime may have made the pipe nonblocking; the hook has to wait for the state.
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
        raise HookError(
            BAD_STATE, f"the {what} on stdin has {size} bytes; at most {longest} are read"
        )
    return b"".join(pieces)


def annotations_of(state: object, what: str = "state") -> dict[str, str]:
    """The annotations of the decoded JSON `state`, {} if it has none.

    Raises HookError (BAD_STATE) if it isn't an object with annotations that are strings; messages
    call it `what`.
    """
    if not isinstance(state, dict):
        raise _bad("isn't a JSON object", what)
    annotations = state.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise _bad("has annotations that aren't strings", what)
    return annotations


def check(state: object) -> State:
    """The State in the decoded JSON `state` of a container that is about to start.

    Raises HookError (BAD_STATE) for anything else.
    """
    annotations = annotations_of(state)
    assert isinstance(state, dict)  # annotations_of has checked that.
    pid, name, status = state.get("pid"), state.get("id"), state.get("status")
    bundle, root = state.get("bundle"), state.get("root")
    if not is_id(name):
        raise _bad(f"has no usable id ({quote(str(name))})")
    if type(pid) is not int:
        raise _bad("has no pid")
    if not 0 <= pid < 1 << 31:
        raise _bad(f"has no usable pid ({str(pid)[:24]})")
    if status not in ("creating", "created"):
        raise _bad(
            f"has the status {quote(str(status))}: register this hook at createRuntime or "
            "createContainer"
        )
    if not _is_path(bundle) or not str(bundle).startswith("/"):
        raise _bad("has no bundle with an absolute path")
    if root is not None and not _is_path(root):
        raise _bad("has a root that isn't a path")
    return State(
        id=name,
        # At createContainer crun gives the pid 0, and runc 1, as it is in the container.
        pid=pid if pid > 1 else None,
        bundle=bundle,
        status=status,
        root=root,
        annotations=annotations,
    )


def is_id(name: object) -> "TypeGuard[str]":
    """Whether `name` can be a container's id, and so a part of a path."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= _ID_MAX
        and _ID.issuperset(name)
        and name.strip(".") != ""
    )


def find_rootfs(state: State, *, cwd: str = "/", crun: str = "/run/crun") -> Rootfs:
    """The root filesystem of the container of `state`.  Raises HookError (BAD_STATE).

    It is looked up in the bundle's config.json first, then in crun's `root`, then in the copy of
    config.json that crun keeps below `crun`.  The last resort is `cwd`, the hook's working
    directory: at createContainer runc starts the hook in the root filesystem, where the bundle may
    be unreadable.
    """
    # crun gives "/" as the bundle of a container with a user namespace and a device.
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
    return Rootfs(path=path, masked=(), remounted=(), version=None, mounted=(), preload=None)


def _bad(why: str, what: str = "state") -> HookError:
    return HookError(BAD_STATE, f"the {what} on stdin {why}")


def _is_path(value: object) -> "TypeGuard[str]":
    """Whether `value` can be given to the kernel as a path: it has no NUL and no lone surrogate."""
    return (
        isinstance(value, str)
        and value != ""
        and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
    )


def _join(directory: str, path: str) -> str:
    return path if path.startswith("/") else f"{directory}/{path}"


def _config(directory: str, state: State) -> Rootfs | str:
    """What `directory`/config.json says, or a sentence that says why it can't be used."""
    from ..files import read_file  # Imported here, since most containers ask for nothing.

    file = f"{directory}/config.json"
    # The path isn't cut, since people need all of it, but it can't add a line to a log.
    path = file if file.isprintable() else ascii(file)
    try:
        config = load_json(read_file(file, CONFIG_MAX))
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError as error:
        return f"{path}: {error}"
    if not isinstance(config, dict):
        return f"{path} isn't a JSON object"
    # The runtime makes the state from this configuration, so every annotation is in both.  The
    # configuration of another container, in a wrong bundle, would have other annotations.  If a
    # container has no annotations, as one with a CDI device may, the key is missing in both.
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
        mounted=mounted(config.get("mounts")),
        preload=preload(config.get("process")),
    )


def mounted(mounts: object) -> tuple[str, ...]:
    """The paths at which there are a configuration's `mounts`."""
    return tuple(
        str(mount.get("destination"))
        for mount in (mounts if isinstance(mounts, list) else ())
        if isinstance(mount, dict)
    )


def preload(process: object) -> str:
    """The LD_PRELOAD of a configuration's `process`; of several variables libc takes the last."""
    found = ""
    environment = process.get("env") if isinstance(process, dict) else None
    for one in environment if isinstance(environment, list) else ():
        if isinstance(one, str) and one.startswith("LD_PRELOAD="):
            found = one.partition("=")[2]
    return found


def remounted(mounts: object) -> tuple[str, ...]:
    """The paths in a configuration's `mounts` that runc remounts after the hooks have run.

    runc mounts a read-only tmpfs writable, and later remounts whatever is at its path with the
    flags that the tmpfs is to have (runc: libcontainer/rootfs_linux.go, finalizeRootfs; 1.1.5).
    crun changes the tmpfs through an fd instead, whatever is at the path by then.
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
    """Refuse a `target` that the engine will cover or remount after the hook.

    If it is covered, the container finds an empty directory.  If it is remounted, the bpffs loses
    nosuid, nodev and noexec after the hook has read them back.  Raises HookError (MOUNT_FAILED).
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
                    hint="remove that mount, or set io.bpffs.path elsewhere",
                ),
            )

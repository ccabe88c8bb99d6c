"""Lists the system calls that the hook makes for a grant: each with its half and its reason.

The order is that of `mount.host_half`, `mount.container_half` and `broker.worker`; a test compares
it with traces of real runs.
"""

from ..bpf.names import KINDS, Enum
from ..delegation.masks import Grant, show
from ..guard.pinned import MARKS
from ..mount.child import settings
from ..mount.container_half import STICKY
from ..paths import SOCKET
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Who takes a step.  If a broker delegates, the broker is the host half, and it has a child of its
# own in the container's namespaces.
HOST = "host"
CONTAINER = "container"
BROKER = "broker"
BROKERS_CHILD = "broker's child"
CREATE_RUNTIME = "createRuntime"
CREATE_CONTAINER = "createContainer"
# The mode that bpffs doesn't show, since it is the default (Linux: kernel/bpf/inode.c,
# bpf_show_options).
_UNSHOWN = 0o777
_BENEATH = "RESOLVE_IN_ROOT|RESOLVE_NO_SYMLINKS|RESOLVE_NO_MAGICLINKS"


class Step(Value):
    """One step: `half` takes it; `call` is the system call with the arguments that matter."""

    __slots__ = ("call", "half", "why")
    half: str
    call: str
    why: str


def steps(
    grant: Grant,
    root: str,
    enums: "Mapping[str, Enum]",
    *,
    stage: str = CREATE_RUNTIME,
    broker: bool,
    confined: bool = False,
) -> "tuple[Step, ...]":
    """What the hook does at `stage` to mount `grant` in the container with the root at `root`.

    With `broker` a broker delegates, as always at CREATE_CONTAINER.  If `confined`, the mount is
    marked for the guard.  `enums` are the kernel's names.
    """
    if broker:
        return tuple(_by_broker(grant, root, enums, stage, confined=confined))
    return tuple(_directly(grant, root, enums, confined=confined))


def _directly(
    grant: Grant, root: str, enums: "Mapping[str, Enum]", *, confined: bool
) -> "Iterator[Step]":
    yield Step(
        half=HOST,
        call='openat("/proc/PID/ns/user"), openat("/proc/PID/ns/mnt")',
        why="hold the container's namespaces; refuse the initial ones and our own",
    )
    yield Step(half=HOST, call="fork()", why="the child is the container half")
    yield Step(half=CONTAINER, call="setns(CLONE_NEWNS)", why="see the container's mounts")
    yield _root(root)
    yield Step(
        half=CONTAINER,
        call="setns(CLONE_NEWUSER)",
        why="own what is made from here on as the container's root",
    )
    yield _target(grant)
    yield Step(
        half=CONTAINER,
        call='fsopen("bpf")',
        why="the superblock will belong to this user namespace; the fd goes to the host half",
    )
    yield from _settings(grant, enums, HOST)
    yield from _mount(grant, CONTAINER)
    if confined:
        yield _mark(HOST)
    yield from _attach(HOST, "/proc/CHILD/mountinfo")


def _by_broker(
    grant: Grant, root: str, enums: "Mapping[str, Enum]", stage: str, *, confined: bool
) -> "Iterator[Step]":
    yield Step(half=CONTAINER, call="fork()", why="the child is the container half")
    if stage == CREATE_RUNTIME:
        yield Step(
            half=CONTAINER,
            call="setns(CLONE_NEWNS), setns(CLONE_NEWUSER)",
            why="join those of the container's namespaces that differ from the engine's",
        )
    yield _root(root)
    yield _target(grant)
    yield Step(
        half=CONTAINER,
        call=f'connect("{SOCKET}")',
        why="ask from the container's namespaces, since the broker looks at who has connected",
    )
    yield Step(
        half=BROKER,
        call="getsockopt(SO_PEERPIDFD)",
        why="the kernel says who asks; then the policy decides",
    )
    yield Step(
        half=BROKERS_CHILD,
        call="setns(CLONE_NEWNS), setns(CLONE_NEWUSER)",
        why="join the namespaces of the process that asks",
    )
    yield Step(
        half=BROKERS_CHILD,
        call='fsopen("bpf")',
        why="the superblock will belong to this user namespace",
    )
    yield from _settings(grant, enums, BROKER)
    yield from _mount(grant, BROKERS_CHILD)
    if confined:
        yield _mark(BROKER)
    yield Step(
        half=BROKER, call="sendmsg(SCM_RIGHTS)", why="send the mount, not attached anywhere yet"
    )
    where = "/proc/CHILD/mountinfo" if stage == CREATE_RUNTIME else "/proc/self/mountinfo"
    yield from _attach(CONTAINER, where)


def _root(root: str) -> Step:
    return Step(
        half=CONTAINER,
        call=f'openat2("{root}", RESOLVE_NO_MAGICLINKS)',
        why="hold the container's root filesystem",
    )


def _target(grant: Grant) -> Step:
    return Step(
        half=CONTAINER,
        call=f'openat2("{grant.path[1:]}", {_BENEATH})',
        why="open the target, resolved once; missing directories are made",
    )


def _settings(grant: Grant, enums: "Mapping[str, Enum]", half: str) -> "Iterator[Step]":
    for name, value in settings(grant):
        mask = grant.masks.get(name)
        yield Step(
            half=half,
            call=f'fsconfig(FSCONFIG_SET_STRING, "{name}", "{value}")',
            why={"source": "shown first by mount(8)", "mode": "the mode of its root directory"}.get(
                name
            )
            or show(mask or 0, enums[name]),
        )
    yield Step(
        half=half,
        call="fsconfig(FSCONFIG_CMD_CREATE)",
        why="make the superblock, which takes CAP_SYS_ADMIN in the initial user namespace",
    )


def _mount(grant: Grant, half: str) -> "Iterator[Step]":
    yield Step(
        half=half,
        call="fsmount(MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC)",
        why="make the mount",
    )
    if not grant.mode & STICKY:
        yield Step(
            half=half,
            call=f"fchmod({grant.mode:04o})",
            why="the kernel gives its root directory the sticky bit, whatever the mode",
        )


def _mark(half: str) -> Step:
    return Step(
        half=half,
        call=f"bpf(BPF_MAP_UPDATE_ELEM, {MARKS})",
        why="mark its root directory, so that the guard confines every token made from it",
    )


def _attach(half: str, mountinfo: str) -> "Iterator[Step]":
    yield Step(
        half=CONTAINER,
        call="move_mount(MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)",
        why="attach it to the target that was opened before",
    )
    yield Step(
        half=half,
        call=f'openat("{mountinfo}")',
        why="read back: what the kernel shows must be the grant, or the bpffs is unmounted again",
    )


def mount_line(grant: Grant, enums: "Mapping[str, Enum]", owner: tuple[int, int] | None) -> str:
    """The line that `mount -t bpf` will print in the container (bpf_show_options).

    `owner` has the host's uid and gid of the container's root; if it is None, the line has the
    words UID and GID instead.
    """
    uid, gid = owner or ("UID", "GID")
    options = ["rw", "nosuid", "nodev", "noexec", "relatime", f"uid={uid}", f"gid={gid}"]
    mode = grant.mode & ~STICKY
    if mode != _UNSHOWN:
        options.append(f"mode={mode:o}")
    for kind in KINDS:
        enum = enums[kind.option]
        # The kernel doesn't show bits that it has no name for.
        known = grant.masks.get(kind.option, 0) & enum.known
        if known:
            options.append(f"{kind.option}={show(known, enum)}")
    return f"bpf on {grant.path} type bpf ({','.join(options)})"

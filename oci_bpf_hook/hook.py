"""The hook: the OCI state on standard input, a delegated bpffs in the container.

An engine runs this in front of every start of a container that asks, so a container
that doesn't ask costs next to nothing, and what a request needs is imported when one
is there.  Only `main` turns an error into a line and an exit code.
"""

import _signal
import posix

from .annotations import asked
from .errors import BAD_STATE, BUG, DONE, UNKNOWN_NAME, USAGE, HookError, Problem, bug, quote
from .state import STATE_MAX, annotations_of, read_stdin
from .strict_json import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from .annotations import Request
    from .compiled import Compiled
    from .container import Container
    from .masks import Grant
    from .policy import Decision
    from .proposed import Proposed
    from .state import Rootfs, State
    from .table import Table
    from .trail import Trail


# Seconds that the runtime has for handing over the state.
_DEADLINE = 4
_OPTIONS = ("--header", "--engine", "--profile", "--path")


def main(arguments: "Sequence[str]") -> int:
    """Run the hook with its command line's `arguments`; its exit code, one of errors.EXITS."""
    if arguments and arguments[0] == "precreate":
        from .precreate import main as precreate

        return precreate(arguments[1:])
    identity = "?"
    try:
        cwd = settle()
        state = _read_state()
        if not asked(annotations_of(state)) and "--profile" not in arguments:
            return DONE
        identity = state.get("id", "?") if isinstance(state, dict) else "?"
        _decide(state, options_of(arguments), cwd)
        return DONE
    except HookError as error:
        return report(identity, error.code, str(error))
    except Exception as error:  # noqa: BLE001  The one place: a bug is no traceback in a log.
        return report(identity, BUG, bug(error))


def settle() -> str:
    """Leave behind what the runtime's process was; the directory it was in."""
    # crun runs hooks with every signal blocked, and a mask is inherited.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    # Ignored, the kernel would reap the container half, and its pid be anybody's.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # Not up to the last there can be: without close_range() in libc and kernel, each of
    # the numbers is closed by itself.
    posix.closerange(3, 1 << 16)
    # What is opened from here on must not become a standard stream that the runtime closed.
    while posix.open("/", posix.O_PATH | posix.O_CLOEXEC) < 3:
        pass
    posix.closerange(3, 4)
    try:
        cwd = posix.getcwd()
    except OSError:  # It has been removed.
        cwd = "/"
    posix.chdir("/")
    posix.umask(0o077)
    return cwd


def _read_state() -> object:
    try:
        return load_json(read_in_time("state", STATE_MAX))
    except ValueError as error:
        raise HookError(BAD_STATE, f"the state on stdin is no JSON: {error}") from None


def read_in_time(what: str, longest: int) -> bytes:
    """The `what` on standard input, of at most `longest` bytes.  Raises HookError (BAD_STATE)."""

    def too_late(number: int, frame: "FrameType | None") -> None:
        raise HookError(BAD_STATE, f"the {what} on stdin didn't end within {_DEADLINE} seconds")

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(_DEADLINE)
    data = read_stdin(what, longest)
    _signal.alarm(0)
    return data


def options_of(arguments: "Sequence[str]") -> dict[str, str]:
    """The command line's options, each with a value, by their names."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while len(rest) >= 2 and rest[0] in _OPTIONS:
        options[rest[0][2:]] = rest[1]
        del rest[:2]
    relative = not options.get("header", "/").startswith("/")
    if rest or relative or ("path" in options and "profile" not in options):
        raise HookError(
            USAGE,
            f"the hook's arguments are {quote(' '.join(arguments))}; "
            "it takes --header FILE, an absolute path, --engine NAME, and in a CDI device "
            "--profile NAME and --path DIR",
        )
    return options


def _decide(decoded: object, options: "Mapping[str, str]", cwd: str) -> None:
    """Do what the `decoded` state asks for, or raise HookError with nothing done.

    Who may delegate does so, and otherwise the broker is asked.  Either is recorded by whoever
    decides, once there is a request.
    """
    from .container import is_initial
    from .state import check

    state = check(decoded)
    if not is_initial():
        from .asking import ask

        ask(state, options, cwd)
        return
    from .policycache import in_force
    from .trail import Trail

    trail = Trail(
        state.id,
        {} if "profile" in options else state.annotations,
        lambda: in_force(header=options.get("header")),
        engine=options.get("engine"),
    )
    try:
        _grant(state, options, trail)
    except HookError as error:
        trail.refused(error)
        raise


def request_of(state: "State", options: "Mapping[str, str]") -> "Request | None":
    """What is asked for: by the annotations, or by a CDI device's arguments alone.

    The device is the administrator's word, and no annotation adds to it.
    """
    from .annotations import device, parse

    if "profile" in options:
        return device(options["profile"], options.get("path"))
    return parse(state.annotations, lambda: podmans_name(state))


def podmans_name(state: "State") -> str | None:
    from .conmon import container_name

    return container_name(state.id)


def by_user(
    state: "State",
    request: "Request",
    rootfs: "Rootfs",
    engine: str | None,
    *,
    rootless: bool = False,
) -> "Mapping[str, str]":
    """The annotations that aren't podman's image's.  Raises HookError where those ask."""
    bundle = state.bundle
    # podman has its bundles in its storage, and crun makes one "/" (`find_rootfs`).
    if engine not in (None, "podman") or (bundle != "/" and not bundle.endswith("/userdata")):
        return state.annotations
    from .images import asked_by_user, copies

    if not copies(rootfs.version):
        return state.annotations
    place = rootfs.path if bundle == "/" else bundle

    def name() -> str | None:
        return podmans_name(state)

    return asked_by_user(request, state.annotations, state.id, place, name, rootless=rootless)


def _grant(state: "State", options: "Mapping[str, str]", trail: "Trail") -> None:
    try:
        request = request_of(state, options)
    except HookError as error:
        from .problems import joined

        raise joined(error, lambda rest: _resolved(rest, trail.policy())) from None
    if request is None:
        trail.off = True
        return
    from .container import Container
    from .state import find_rootfs

    with Container(state.pid) as container:
        rootfs = find_rootfs(state)
        visible(request.path, rootfs.masked, rootfs.remounted)
        annotations: Mapping[str, str] = state.annotations
        device = options.get("profile")
        if device is None and not trail.policy().image_annotations:
            engine = options.get("engine", trail.policy().engine)
            annotations = by_user(state, request, rootfs, engine)
        elif device is not None and device not in (profiles := trail.policy().profiles):
            from .unknown import no_profile

            raise HookError(UNKNOWN_NAME, no_profile("the CDI device", device, profiles))

        def name() -> str | None:
            return podmans_name(state)

        give(
            container,
            rootfs.path,
            request,
            trail,
            lambda policy: subject_of(
                annotations, container, rootfs.path, policy, options, name=name
            ),
            alone=device is not None,
            name=name,
        )


def give(
    container: "Container",
    root: str,
    request: "Request",
    trail: "Trail",
    subject: "Callable[[Compiled], dict[str, object]]",
    *,
    alone: bool = False,
    name: "Callable[[], str | None]" = lambda: None,
) -> bool:
    """Mount what the policy gives of `request`, for the command `delegate` as for the hook.

    `root` is where the container's root filesystem is (RUNNING once it runs); `subject`
    says who asks, and `name` finds the container's name where it doesn't; `alone` is
    HostHalf.mount's.  Returns whether anything was mounted, which it isn't where just that was
    there already.  Raises HookError, with nothing done.
    """
    from .host_half import HostHalf

    decision = judge(request, trail, subject, name=name)
    if decision is None:
        return False
    # Nothing of ours is in the container before it is decided.
    with HostHalf(container, root) as half:
        enums = trail.policy().enums
        mounted = half.mount(decision.grant, enums, guard=trail.guard, alone=alone)
        if mounted:
            trail.granted()
            half.keep()
        trail.say(mounted=mounted)
    return mounted


def judge(
    request: "Request",
    trail: "Trail",
    subject: "Callable[[Compiled], dict[str, object]]",
    *,
    name: "Callable[[], str | None]",
) -> "Decision | None":
    """What the policy gives of `request`, ready to be put on record; None where that asks nothing.

    `subject` and `name` are as for `give`.  Raises HookError.
    """
    from .policy import decide

    policy = trail.policy()
    wanted, dropped = _resolved(request, policy)
    if not wanted.masks and not request.record:
        trail.off = True
        return None
    trail.subject = subject(policy)

    def settled() -> "Decision":
        decision = decide(policy, trail.subject, request, wanted, policy.enums)
        trail.prepare(decision, dropped)
        return decision

    try:
        return settled()
    except HookError:
        # No rule asks for the name, but the refusal has one to paste, which is not to be for all.
        if trail.subject["container"] is None:
            trail.subject["container"] = name()
            return settled()
        raise


def _resolved(request: "Request", policy: "Compiled") -> "tuple[Grant, tuple[str, ...]]":
    """What is asked for, on this kernel and by this policy's profiles.  Raises HookError."""
    from .masks import resolve

    return resolve(request, policy.enums, _table, policy.profiles)


def _table() -> "Table":
    from .kernel import table

    return table()


def subject_of(
    annotations: "Mapping[str, str]",
    container: "Container | Proposed",
    root: str,
    policy: "Compiled",
    options: "Mapping[str, str]",
    *,
    name: "Callable[[], str | None]",
) -> dict[str, object]:
    """Who asks: what the policy's rules may match, as far as they do.

    `name` finds the container's name where podman's annotations don't have it.

    Here an engine has started us, which has just made the user namespace or joined one, and so
    there is none of the doubt about root's that the broker has (`peer.user_behind`): root's is an
    engine of root's, whichever ids it maps.  But what root's engine did for whoever called it by a
    set-user-id program is that user's, who is our real user then.
    """
    from .policy import ENGINES, identify

    engine = options.get("engine", policy.engine)
    if engine is not None and engine not in ENGINES:
        raise HookError(USAGE, f"--engine {quote(engine)} is none of {', '.join(ENGINES)}")
    subject = identify(annotations, engine)
    if "profile" in options:
        subject["cdi"] = options["profile"]
    subject["user"] = container.owner() or posix.getuid()
    subject["group"] = (posix.getegid(),)
    # Only in the initial user namespace does the hook come this far by itself.
    subject["rootless"] = False
    if "container" in policy.uses and subject["container"] is None and engine in (None, "podman"):
        subject["container"] = name()
    if "host_network" in policy.uses:
        subject["host_network"] = container.has_host_network()
    if "host_cgroup" in policy.uses:
        subject["host_cgroup"] = container.sees_host_cgroups(root)
    return subject


def visible(target: str, masked: "Sequence[str]", remounted: "Sequence[str]") -> None:
    """Refuse what the engine will cover: the container would find an empty directory.

    And what it will remount: that takes nosuid, nodev and noexec away, after we have looked.
    """
    from .errors import MOUNT_FAILED

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


def report(identity: object, code: int, text: str) -> int:
    """Say on stderr and in the system's log why there is no container."""

    def too_late(number: int, frame: "FrameType | None") -> None:
        raise TimeoutError

    # A full pipe, or a terminal that is stopped, would have us wait for its reader.
    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(1)
    name = quote(identity)[1:-1] if isinstance(identity, str) else "?"
    try:
        line = f"oci-bpf-hook: {name}: {text} (exit code {code})\n"
        posix.write(2, line.encode("utf-8", "backslashreplace"))
        # Whatever has come by now is raised here, and nothing any more behind this.
        _signal.signal(_signal.SIGALRM, _signal.SIG_IGN)
    except OSError:  # crun has closed it, or the engine doesn't read.
        pass
    _signal.alarm(0)
    from .log import ERROR, log

    log(ERROR, f"{name}: {text} (exit code {code})")
    return code

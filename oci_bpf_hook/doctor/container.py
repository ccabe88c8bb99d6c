"""A container: the list of what can keep a program in it from its token, and what it reaches.

Each cause has a check of its own.  A check says nothing if another cause already answers its
question: for a container without a user namespace, capabilities aren't mentioned.  Commands to
paste into a shell contain the container's own words, which are therefore quoted.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import TypeVar

from ..advise.needs import Needs
from ..audit.read import asker, last_refusal
from ..bpf.names import KINDS, Enum, Kind
from ..container.namespaces import Container, Process
from ..container.nesting import is_nested
from ..delegation.annotations import PATH
from ..delegation.masks import parse_shown
from ..errors import BAD_STATE, REFUSED, HookError
from ..guard.confinement import confined
from ..kernel import bpf, tracing
from ..kernel import process as probe_process
from ..kernel.mountinfo import Mount, of_interest
from ..kernel.seccomp import FilterError, answer
from ..oci.cdi import TOKEN_PATH
from ..paths import POLICY
from ..running.containers import Running
from ..running.delegations import names, user_name
from ..running.process import Status, environment, inside_id, mounts, read, status
from . import guarded, library, objects, programs
from .attempt import Tried, visit
from .finding import Finding, ok, problem, warning
from .programs import add_capabilities

_Kind = TypeVar("_Kind", Process, Container)
_SECCOMP_FILTER = 2
# Causes that may be found for an object and for the delegation as a whole; one finding is enough.
_ALSO_OF_OBJECTS = ("cap-net-admin", "cap-perfmon", "perf-event-open")


def check(one: Running, enums: Mapping[str, Enum], needs: Needs | None = None) -> Iterator[Finding]:
    """Everything about the container `one`, seen from its process `one.pid`.

    With `needs`, also whether that is enough for the objects that need it.
    """
    try:
        with _opened(Process, one) as process:
            found = _namespaces(process)
            yield found
            if found.state == "ok":
                yield from _once(_Examination(one, process, enums).run(needs))
    except HookError as error:
        yield _unreachable(one, str(error))
    except OSError as error:
        yield _unreachable(one, error.strerror or str(error))


def _opened(kind: type[_Kind], one: Running) -> _Kind:
    """The process of `one`, as a Process or a Container.  Raises HookError if it has ended."""
    process = kind(one.pid)
    if not process.is_in(one.user, one.mount):
        process.close()
        raise HookError(BAD_STATE, f"{one.label} has ended meanwhile")
    return process


def _once(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The `findings`, of which those of _ALSO_OF_OBJECTS come once: the first one knows most."""
    seen: set[str] = set()
    for one in findings:
        if one.what not in seen or one.what not in _ALSO_OF_OBJECTS:
            yield one
        seen.add(one.what)


def _unreachable(one: Running, reason: str) -> Finding:
    if os.geteuid():
        return problem(
            "container",
            f"this user may not look at process {one.pid}",
            f"sudo oci-bpf-hook doctor --pid {one.pid}",
        )
    return problem("container", f"process {one.pid} can't be looked at: {reason}")


def refused(name: str) -> Iterator[Finding]:
    """Why a container that was refused doesn't run, as the hook or the broker recorded it."""
    entry = last_refusal(name)
    if entry is None:
        return
    by_policy = entry.get("code") == REFUSED
    why = "; ".join(map(str, entry.get("problems") or ["nothing says why"]))
    user = asker(entry)
    # A client can tell the broker any name.
    whose = f" (asked for by {user_name(user)})" if user else ""
    refused_by = "the policy refused it" if by_policy else "it was refused"
    yield problem(
        "refused",
        f"it doesn't run, because {refused_by}{whose}: {why}",
        f"edit {POLICY}" if by_policy else f"oci-bpf-hook check, with {name}'s annotations",
    )


def _namespaces(process: Process) -> Finding:
    if process.is_on_host():
        return problem(
            "no-user-namespace",
            "it has no user namespace of its own, and BPF tokens exist only in one",
            "podman run --userns=auto ... (Kubernetes: hostUsers: false)",
        )
    if process.owns_its_mounts():
        return ok("user-namespace", f"it has its own, of {user_name(process.owner())}")
    if is_nested(process):
        return _nested()
    return problem(
        "no-mount-namespace",
        "its mount namespace doesn't belong to its user namespace, so nothing can be mounted for "
        "it",
        "unshare --user --mount ...",
    )


def _nested() -> Finding:
    return problem(
        "nested-user-namespace",
        "the process is in a user namespace within the container's, and the bpffs belongs to the "
        "outer one; a token has to be made and used in the same user namespace",
        "run the program in the container's own user namespace, not below unshare or bwrap",
    )


class _Examination:
    """What is known of one process, and the checks that share it."""

    def __init__(self, one: Running, process: Process, enums: Mapping[str, Enum]) -> None:
        self.one = one
        self.process = process
        self.enums = enums
        self.status: Status = status(process)
        self.path, self.given = self._path()
        every = mounts(process, of_interest(os.path.normpath(self.path)))
        self.mounts = [mount for mount in every.kept if mount.id not in every.covered]
        self.delegated = [mount for mount in self.mounts if mount.delegates]

    def _path(self) -> tuple[str, str | None]:
        """Where libbpf looks for a bpffs in this process, and what the environment says."""
        try:
            given = environment(self.process).get(TOKEN_PATH)
        except OSError:
            given = None
        return given or PATH, given

    def run(self, needs: Needs | None) -> Iterator[Finding]:
        mount = self._at(self.path)
        yield from self._mount(mount)
        lacks_bpf = not self.status.has(probe_process.CAP_BPF)
        if lacks_bpf:
            yield self._capability()
        else:
            yield ok("cap-bpf", "it has CAP_BPF")
        yield from self._seccomp(lacks_bpf=lacks_bpf)
        if mount is not None and mount.delegates:
            yield from self._token(mount, lacks_bpf=lacks_bpf)
            if needs is not None:
                masks = {kind.option: self._mask(mount, kind) for kind in KINDS}
                yield from objects.check(needs, masks, self.status, self.enums, self._target())
            given = {kind.option: self._names(mount, kind) for kind in KINDS}
            held = bool(confined(self.process, mount))
            yield from programs.check(self.process, self.status, given, confined=held)
        if self.delegated:
            yield from guarded.check(self.one.user)
        yield from library.check(self.one, self.process)

    def _at(self, path: str) -> Mount | None:
        """The topmost mount whose mount point is `path` itself."""
        found = None
        for mount in self.mounts:
            if mount.point == os.path.normpath(path):
                found = mount
        return found

    # ---- the mount ----

    def _mount(self, mount: Mount | None) -> Iterator[Finding]:
        if self.given == "":
            yield problem(
                "token-path",
                f"{TOKEN_PATH} is empty in its environment, which tells libbpf to use no token",
                f"unset {TOKEN_PATH}",
            )
        elif mount is not None and mount.delegates:
            yield from self._right_mount(mount)
        elif self.delegated:
            if self._root_token() == 0:
                yield ok("bpffs", f"{self.path} leads to a bpffs that delegates")
            else:
                yield self._other_path()
        elif mount is None or mount.fstype != "bpf":
            yield self._none("")
        elif os.geteuid() == 0 and self._root_token() != errno.ENOENT:
            # podman binds the host's /sys into a container of a pod with a user namespace.
            yield self._none(f"; the one at {self.path} is the host's own, and gives it no token")
        else:
            why = f"the bpffs at {self.path} delegates nothing"
            yield problem("masks-empty", why, self._delegate())

    def _none(self, more: str) -> Finding:
        why = f"there is no delegated bpffs at {self.path}, nor anywhere else in the container"
        return problem("no-bpffs", f"{why}{more}", self._delegate())

    def _right_mount(self, mount: Mount) -> Iterator[Finding]:
        if mount.root != "/":
            yield problem(
                "not-the-root",
                f"{mount.point} is the directory {mount.root} of a bpffs, but tokens are made "
                "only from a bpffs's root",
                self._delegate(),
            )
            return
        counts = (
            f"{self._count(mount.delegates[kind.option])} {kind.what}s"
            for kind in KINDS
            if kind.option in mount.delegates
        )
        yield ok("bpffs", f"{mount.point} delegates {', '.join(counts)}")

    def _root_token(self) -> int:
        """The errno with which the container's root gets a token there; -1 if it can't try."""
        if os.geteuid():
            return -1
        try:
            with _opened(Container, self.one) as container:
                return visit(container, self.path, self.status).root_token
        except HookError:
            return -1

    def _other_path(self) -> Finding:
        there = ", ".join(mount.point for mount in self.delegated)
        says = "says so" if self.given else "isn't set"
        return problem(
            "token-path",
            f"libbpf looks at {self.path}, because {TOKEN_PATH} {says}, and the delegated bpffs "
            f"is at {there}; cilium/ebpf looks at every bpffs",
            f"podman run --env {quote(f'{TOKEN_PATH}={self.delegated[0].point}')} ...",
        )

    def _target(self) -> str:
        # A user's container may have the same name as one of root's, which root means.
        if os.geteuid() == 0 and (self.one.name or self.one.id):
            return f"--container {quote(self.one.label)}"
        return f"--pid {self.one.pid}"

    def _delegate(self) -> str:
        return f"{objects.as_root()}oci-bpf-hook delegate {self._target()} --profile NAME"

    # ---- capabilities ----

    def _capability(self) -> Finding:
        who = self.status
        if (
            who.bounding >> probe_process.CAP_BPF & 1
            and inside_id(self.process, "uid", who.uid) != 0
        ):
            return problem(
                "ambient",
                "it may have CAP_BPF but runs as a user other than root, who gets capabilities "
                "only if they are ambient",
                "setpriv --inh-caps +bpf --ambient-caps +bpf PROGRAM, as root in the container",
            )
        if who.has(probe_process.CAP_SYS_ADMIN):
            return problem(
                "only-sys-admin",
                "it has CAP_SYS_ADMIN and not CAP_BPF, but making a token takes CAP_BPF itself",
                add_capabilities("BPF"),
            )
        if who.bounding >> probe_process.CAP_BPF & 1:
            return problem(
                "cap-bpf",
                "the container may have CAP_BPF, but this process has dropped it",
                "keep CAP_BPF in the program's permitted and effective sets",
            )
        return problem(
            "cap-bpf",
            "it lacks CAP_BPF, which engines don't give by default",
            add_capabilities("BPF"),
        )

    # ---- seccomp ----

    def _seccomp(self, *, lacks_bpf: bool) -> Iterator[Finding]:
        if self.status.seccomp != _SECCOMP_FILTER:
            yield ok("seccomp", "it has no seccomp filter")
            return
        try:
            filters = tracing.seccomp_filters(self.one.pid)
            if not self.process.alive():
                raise OSError(errno.ESRCH, "it has ended")
            arch = bpf.arch()
            answers = {
                command: answer(filters, arch.bpf, arch.audit, (command,))
                for command in (
                    bpf.BPF_TOKEN_CREATE,
                    bpf.BPF_MAP_CREATE,
                    bpf.BPF_PROG_LOAD,
                    bpf.BPF_BTF_LOAD,
                )
            }
        except (OSError, FilterError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            yield warning(
                "seccomp",
                f"its seccomp filter can't be read ({reason}); if bpf(2) with TOKEN_CREATE and fd "
                "-1 fails with EPERM in it, and not with EBADF, the filter is the cause",
                f"sudo oci-bpf-hook doctor {self._target()}" if os.geteuid() else "",
            )
            return
        refused = [found for found in answers.values() if not found.allows]
        if not refused:
            yield ok("seccomp", "its filter lets bpf(2) through")
        elif not lacks_bpf:
            # An engine's profile depends on the capability; without CAP_BPF the filter isn't the
            # cause.
            yield problem(
                "seccomp",
                f"its seccomp filter keeps bpf(2) from the kernel: it {refused[0]}",
                "oci-bpf-hook seccomp --output FILE; podman run --security-opt seccomp=FILE ...",
            )

    # ---- the token ----

    def _token(self, mount: Mount, *, lacks_bpf: bool) -> Iterator[Finding]:
        if mount.root != "/":
            return
        if os.geteuid():
            yield warning(
                "token",
                "no token was tried: that takes root",
                f"sudo oci-bpf-hook doctor {self._target()}",
            )
            return
        try:
            with _opened(Container, self.one) as container:
                tried = visit(container, self.path, self.status)
        except HookError as error:
            yield warning("token", str(error))
            return
        found = self._what_is_wrong(tried)
        if found:
            yield found
        elif tried.token == 0:
            yield ok("token", "the kernel makes a token for it")
        elif not lacks_bpf:
            yield self._unexplained(tried)

    def _what_is_wrong(self, tried: Tried) -> Finding | None:
        if tried.root_token == errno.EPERM:
            if is_nested(self.process):
                return _nested()
            return problem(
                "foreign-bpffs",
                f"the bpffs at {self.path} belongs to another user namespace than the container's",
                self._delegate(),
            )
        if tried.opened == errno.EACCES:
            return problem(
                "search-permission",
                f"it may not open {self.path}: the directory's mode keeps its user out",
                "podman run --annotation io.bpffs.mode=1777 ...",
            )
        return None

    def _unexplained(self, tried: Tried) -> Finding:
        number = tried.token if tried.token > 0 else max(tried.opened, tried.root_token)
        by = f"; it runs as {label}" if (label := self._label()) else ""
        return problem(
            "token",
            f"the kernel makes no token for it: {os.strerror(number)}; since all of the above is "
            f"in order, a security module must have refused{by}",
            "ausearch -m avc -ts recent",
        )

    def _label(self) -> str:
        try:
            return read(self.process, "attr/current").strip("\0\n")
        except OSError:
            return ""

    def _names(self, mount: Mount, kind: Kind) -> list[str]:
        return names(self._mask(mount, kind), self.enums[kind.option])

    def _mask(self, mount: Mount, kind: Kind) -> int:
        try:
            return parse_shown(mount.delegates[kind.option], self.enums[kind.option])
        except (KeyError, ValueError):  # No such option, or a name that we don't know.
            return 0

    def _count(self, text: str) -> str:
        return text if text == "any" else str(text.count(":") + 1)

"""Whether podman gets subordinate ids, from whatever it asks for them.

podman asks libsubid if it is linked with it, and then libsubid's own getsubids(1) has the answer.
Otherwise podman itself looks for the name in /etc/subuid and /etc/subgid.  The answers differ:
since shadow 4.20 libsubid gives ranges only to users that exist (is_same_user in
lib/subordinateio.c), and nsswitch.conf can have it ask something else than these files.
"""

import mmap
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..running.delegations import user_name
from ..running.programs import find
from ..users import AUTO_USER, SUBUID
from .engines import Engine
from .finding import Finding, ok, problem

SUBGID = "/etc/subgid"
# The option with which getsubids lists the ranges that would be in the file.
_OPTIONS: dict[str, tuple[str, ...]] = {SUBUID: (), SUBGID: ("-g",)}
_SECONDS = 10


def check(found: Sequence[Engine]) -> Iterator[Finding]:
    """Whether podman, if it is among the engines, gets ids for the containers it is run for."""
    podman = next((engine for engine in found if engine.name == "podman"), None)
    if podman is None:
        return
    root = os.geteuid() == 0
    user = AUTO_USER if root else user_name(os.geteuid())
    what = "podman's --userns=auto" if root else "rootless podman"
    missing = [path for path in _OPTIONS if not _in_file(path, user)]
    library = _getsubids(podman)
    refused = bool(library) and not all(_of_library(library, user, path) for path in _OPTIONS)
    if not refused and (library or not missing):
        yield ok("subuid", f"{user} has subordinate ids for {what}")
    elif missing:
        has = "has" if len(missing) == 1 else "have"
        why = f"{' and '.join(missing)} {has} no range for {user}, from which {what} takes its ids"
        yield problem("subuid", why, _fix(user, missing, root=root))
    elif _exists(user):
        yield problem(
            "subuid",
            f"{SUBUID} and {SUBGID} have ranges for {user}, but getsubids finds none, and {what} "
            "asks the same library; subid in /etc/nsswitch.conf says where that looks",
            "grep subid /etc/nsswitch.conf",
        )
    else:
        yield problem(
            "subuid",
            f"{SUBUID} and {SUBGID} have ranges for {user}, but there is no such user, and since "
            f"shadow 4.20 the library that {what} asks for its ids gives them only to users",
            _fix(user, (), root=root),
        )


def _fix(user: str, missing: Sequence[str], *, root: bool) -> str:
    if not root:
        return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    commands = [f"echo {user}:2147483647:2147483648 >> {name}" for name in missing]
    if not _exists(user):
        commands.insert(0, f"useradd --system --shell /usr/sbin/nologin {user}")
    return "; ".join(commands)


def _in_file(path: str, user: str) -> bool:
    """Whether a line of the file at `path` is for `user`."""
    names = {user, str(os.geteuid())} if user != AUTO_USER else {user}
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.split(":")[0] in names for line in text.splitlines())


def _getsubids(podman: Engine) -> str:
    """The path of getsubids, if it knows what podman is told; "" if it isn't there."""
    look = shutil.which if os.geteuid() else find
    return (look("getsubids") or "") if _is_linked(podman.path) else ""


def _is_linked(path: str) -> bool:
    """Whether the program at `path` names libsubid among the libraries that it is linked with."""
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return data.find(b"\0libsubid.so.") >= 0
    except (OSError, ValueError):
        return False


def _of_library(program: str, user: str, path: str) -> bool:
    """Whether libsubid gives `user` a range of those that are otherwise in the file at `path`."""
    try:
        done = subprocess.run(  # noqa: S603
            [program, *_OPTIONS[path], user],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return _in_file(path, user)
    return done.returncode == 0 and bool(done.stdout.strip())


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True

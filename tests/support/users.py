"""Users that exist for the tests alone: the host's /etc isn't touched, ours is copied on write."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_IDS: Final = 65_536


class User(NamedTuple):
    """An unprivileged user with as many subordinate ids as a container has."""

    name: str
    uid: int
    first_subid: int

    def running(self, command: Sequence[str]) -> list[str]:
        """A command that runs `command` as this user, with this user's groups."""
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups"]
        return ["setpriv", *ids, "--", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `command` as this user."""
        return subprocess.run(
            self.running(command), capture_output=True, text=True, check=False, cwd="/"
        )


ALICE: Final = User("obh-alice", 61_001, 2_000_000)
BOB: Final = User("obh-bob", 61_002, 2_100_000)
# A group that alice is in.
GROUP: Final = ("obh-bpf", 61_003)


@contextmanager
def users(*, groups: bool = True) -> Iterator[None]:
    """Both users, with alice in GROUP, as long as this lasts.

    For a session that has entered its private mounts (engines.enter_private_mounts).
    """
    both = (ALICE, BOB)
    lines = {
        "passwd": [f"{one.name}:x:{one.uid}:{one.uid}::/:/bin/sh" for one in both],
        "group": [f"{one.name}:x:{one.uid}:" for one in both],
        "subuid": [f"{one.name}:{one.first_subid}:{_IDS}" for one in both],
        "subgid": [f"{one.name}:{one.first_subid}:{_IDS}" for one in both],
    }
    if groups:
        lines["group"].append(f"{GROUP[0]}:x:{GROUP[1]}:{ALICE.name}")
    with ExitStack() as stack:
        for name, added in lines.items():
            stack.enter_context(appended(Path("/etc", name), added))
        yield


@contextmanager
def appended(path: Path, lines: Sequence[str]) -> Iterator[None]:
    """Have these lines at the end of the file, as long as this lasts."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(before + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")

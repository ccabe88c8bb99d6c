"""One step of an installation: it says what it would do, knows whether it has to, and does it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import whole
from ..values import Value
from .bytecode import compile_all, is_compiled


class Step(Value):
    """One thing to do to `path`: `action` is write, remove, compile, or off for the guard.

    `content` and `mode` are what a file is to have.
    """

    __slots__ = ("action", "content", "mode", "path")
    action: str
    path: Path
    content: bytes
    mode: int

    def needed(self) -> bool:
        """Whether there is anything to do."""
        if self.action == "write":
            return not whole.is_written(self.path, self.content, self.mode)
        try:
            self.path.lstat()
        except FileNotFoundError:
            return self.action == "compile"
        return self.action != "compile" or not is_compiled(self.path)

    def describe(self) -> str:
        """The step as a line."""
        mode = f" ({self.mode:04o})" if self.action == "write" else ""
        return f"{self.action} {self.path}{mode}"

    def execute(self) -> None:
        """Do it.  Raises OSError, and HookError if the interpreter can't compile."""
        if self.action == "write":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole.write(self.path, self.content, mode=self.mode)
        elif self.action == "compile":
            compile_all(self.path, self.content.decode())
        elif self.action == "off":
            from ..guard.lsm.load import turn_off

            turn_off()
        elif self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


def untrusted(steps: Sequence[Step], top: str = "") -> list[str]:
    """What of the directories that the steps write to isn't ours alone, in sentences.

    It is looked at as far up as `top`, below which everything is installed.

    What is in there runs as root in front of every container that asks.
    """
    problems: dict[str, None] = {}
    for directory in dict.fromkeys(step.path.parent for step in steps):
        for path in _up_to(directory, Path(top or "/")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if status.st_uid not in (0, os.geteuid()):
                problems[f"{path} isn't root's, and what is installed below it runs as root"] = None
            elif status.st_mode & 0o022:
                problems[
                    f"others than root can write {path}, and what is installed below it runs as "
                    f"root; chmod go-w {path}"
                ] = None
    return list(problems)


def _up_to(directory: Path, top: Path) -> Iterator[Path]:
    """`directory` and those above it as far as `top`."""
    for path in (directory, *directory.parents):
        yield path
        if path == top:
            return


def removal(path: Path) -> Step:
    """The step that removes `path`, whatever it is."""
    return Step(action="remove", path=path, content=b"", mode=0)


def copy(path: Path, source: Path, *, mode: int = 0o644) -> Step:
    """The step that writes to `path` what is in `source`."""
    return Step(action="write", path=path, content=source.read_bytes(), mode=mode)

"""The steps of an installation; each says what it does and whether it is needed, and does it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import whole
from ..values import Value
from .bytecode import compile_all, is_compiled


class Step(Value):
    """One thing to do to `path`: `action` is write, remove, compile, or off (unload the guard).

    A file that is written gets `content` and `mode`; for compile, `content` is the directory that
    tracebacks are to show.
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
        """Do the step.  Raises OSError, and HookError if the interpreter can't compile."""
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
    """A sentence for each directory of the steps that others than root and we could change.

    What is installed there is run as root, so every directory up to `top`, below which everything
    is installed, is checked.
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
    """`directory` and those above it, up to `top`."""
    for path in (directory, *directory.parents):
        yield path
        if path == top:
            return


def removal(path: Path) -> Step:
    """The step that removes the file or directory `path`."""
    return Step(action="remove", path=path, content=b"", mode=0)


def copy(path: Path, source: Path, *, mode: int = 0o644) -> Step:
    """The step that copies the file `source` to `path`."""
    return Step(action="write", path=path, content=source.read_bytes(), mode=mode)

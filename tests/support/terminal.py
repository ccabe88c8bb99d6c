"""What a program writes to a terminal: a real one, of a pair."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

from tests.support.places import ROOT


def on_terminal(
    command: Sequence[str], *, columns: int = 80, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run `command` with a terminal for its output: exit code, and what came, lines as \\n."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # EIO: the last one that had it open has gone.
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(ours)
    return process.returncode, b"".join(pieces).decode().replace("\r\n", "\n")

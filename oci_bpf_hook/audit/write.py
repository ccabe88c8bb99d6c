"""Writes the audit trail: one JSON line for each decision, granted or refused.

A line is one write to a file that was opened for appending, which the kernel does as a whole.  The
file is opened for each line, so that logrotate may move it away at any time.
"""

import posix
from time import gmtime, strftime

from ..errors import REFUSED, HookError
from ..syslog import INFO, send
from ..text.strict_json import json_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_APPEND = (
    posix.O_WRONLY
    | posix.O_APPEND
    | posix.O_CREAT
    | posix.O_CLOEXEC
    | posix.O_NOFOLLOW
    | posix.O_NONBLOCK
)


def line(fields: "Mapping[str, object]") -> str:
    """The line of JSON for `fields`, with the present time in UTC and without a newline."""
    return json_object({"time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), **fields})


def write(to: str, text: str, *, required: bool) -> None:
    """Append the line `text` to the file `to`, or send it to syslog.

    `to` is an absolute path, "syslog", or "none", with which nothing is done.  Raises HookError
    (REFUSED) if that fails and is `required`.
    """
    try:
        if to == "syslog":
            send(INFO, f"audit {text}")
        elif to != "none":
            _append(to, f"{text}\n".encode())
    except OSError as error:
        if required:
            raise HookError(
                REFUSED,
                f"the audit trail {to} can't be written ({error.strerror}), and the policy's "
                "audit.required wants every grant to be recorded",
            ) from None


def _append(path: str, line: bytes) -> None:
    try:
        fd = posix.open(path, _APPEND, 0o640)
    except FileNotFoundError:
        try:
            posix.mkdir(path.rpartition("/")[0], 0o750)
        except FileExistsError:  # Another hook has just made it.
            pass
        fd = posix.open(path, _APPEND, 0o640)
    try:
        written = posix.write(fd, line)
        if written != len(line):
            from errno import ENOSPC

            # The disk is full.  The next line must not be appended to a part of this one.
            end = posix.lseek(fd, 0, 1)
            if posix.fstat(fd).st_size == end:
                posix.ftruncate(fd, end - written)
            raise OSError(ENOSPC, posix.strerror(ENOSPC), path)
    finally:
        posix.close(fd)

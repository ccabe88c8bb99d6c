"""Sends one line to syslog for each decision, since crun discards a hook's output.

libc's syslog(3) isn't used, because it waits if the daemon doesn't read, and the start of the
container would wait with it.  Here a line that can't be sent at once is lost.
"""

import posix
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_DGRAM, socket
from time import strftime

IDENT = "oci-bpf-hook"
DEV_LOG = "/dev/log"
# RFC 3164: facility daemon (3) times 8, plus the severity.
INFO = 3 * 8 + 6
ERROR = 3 * 8 + 3
# journald takes longer messages; rsyslog cuts them here by default.
_LONGEST = 8192
# The most characters of an ASCII text that fit after the timestamp and the tag.
FITS = _LONGEST - 64


def log(priority: int, text: str) -> None:
    """Send `text`, one line, to the system's log with the `priority` INFO or ERROR.

    If no daemon takes it, the line is lost, without an error.
    """
    try:
        send(priority, text)
    except OSError:
        pass


def send(priority: int, text: str) -> None:
    """Send it as `log` does; raises OSError if no daemon takes it."""
    line = f"<{priority}>{strftime('%b %e %H:%M:%S')} {IDENT}[{posix.getpid()}]: {text}"
    sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        sock.connect(DEV_LOG)
        sock.send(line.encode("utf-8", "backslashreplace")[:_LONGEST], MSG_DONTWAIT)
    finally:
        sock.close()

"""One line of syslog for each decision, since crun discards a hook's output.

libc's syslog(3) isn't used: it waits, twice, for a daemon that doesn't read, and the start of a
container would hang with it.  A line that can't be sent at once is lost.
"""

import posix
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_DGRAM, socket
from time import strftime

IDENT = "oci-bpf-hook"
DEV_LOG = "/dev/log"
# RFC 3164: facility daemon (3) times 8, plus the severity.
INFO = 3 * 8 + 6
ERROR = 3 * 8 + 3
# journald takes more; rsyslog's default ends a message here.
_LONGEST = 8192
# What of that is left for a text in ASCII, after the timestamp and the tag.
FITS = _LONGEST - 64


def log(priority: int, text: str) -> None:
    """Send `text`, one line, to the system's log if a daemon listens."""
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

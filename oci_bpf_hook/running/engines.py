"""Which programs of engines are installed on this host, as root may believe and run them.

Where a program is must not come from anybody: neither another process's command line nor the
environment that sudo(8) hands on is asked.  So there is a fixed list of directories, and what is
found there counts only if nobody but root can put something else in its place.
"""

import os
import stat
from collections.abc import Iterator

# Where distributions and the engines' own packages put them, in the engines' order.
PLACES = (
    *("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"),
    *("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/libexec"),
    *("/usr/local/lib/podman", "/usr/libexec/crio", "/usr/local/libexec/crio"),
    *("/usr/lib/cri-o-runc/sbin", "/usr/libexec/docker", "/opt/containerd/bin"),
)
# As many links in a path as the kernel follows.
_LINKS = 40
_OTHERS_WRITE = 0o022
_EXECUTE = 0o111

# The device and inode of a file.
Identity = tuple[int, int]


def find(name: str) -> str | None:
    """The path of the installed program `name`, the first there is; None if there is none."""
    return next((path for path in _paths(name) if trusted(path) is not None), None)


def is_place_of(path: str, name: str) -> bool:
    """Whether the text `path` is where the program `name` is installed; nothing else is opened."""
    return path in _paths(name) and trusted(path) is not None


def is_program(file: os.stat_result, link: str, name: str) -> bool:
    """Whether a process's executable is the installed program `name`.

    `file` is what its /proc/PID/exe is, and `link` what that link says.  One that a newer package
    has replaced meanwhile counts as long as it has the place's name, and lies on its filesystem.
    """
    for path in _paths(name):
        found = trusted(path)
        if found == (file.st_dev, file.st_ino):
            return True
        replaced = link == f"{path} (deleted)" and file.st_nlink == 0 and _is_roots_program(file)
        if replaced and found is not None and found[0] == file.st_dev:
            return True
    return False


def trusted(path: str) -> Identity | None:
    """Which file the absolute `path` leads to, if that is a program that root alone can change."""
    status = roots_alone(path)
    if status is None or not _is_roots_program(status):
        return None
    return status.st_dev, status.st_ino


def roots_alone(path: str) -> os.stat_result | None:
    """What the absolute `path` leads to, if root alone decides that; None if others do, or nothing.

    Every directory and link on the way is root's, and others may write to none of the directories;
    what is root's in one with the sticky bit, as /tmp has it, nobody else can move.
    """
    parts = [part for part in path.split("/") if part][::-1]
    links = 0
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while parts:
            if not _is_roots_directory(os.fstat(here)):
                return None
            name = parts.pop()
            there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            status = os.fstat(there)
            if stat.S_ISLNK(status.st_mode):
                os.close(there)
                links += 1
                if status.st_uid != 0 or links > _LINKS:
                    return None
                target = os.readlink(name, dir_fd=here)
                parts += [part for part in target.split("/") if part][::-1]
                if not target.startswith("/"):
                    continue
                there = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.close(here)
            here = there
        status = os.fstat(here)
        return status if status.st_uid == 0 else None
    except OSError:
        return None
    finally:
        os.close(here)


def _paths(name: str) -> Iterator[str]:
    if name and name.isprintable() and "/" not in name and name not in (".", ".."):
        for place in PLACES:
            yield f"{place}/{name}"


def _is_roots_directory(status: os.stat_result) -> bool:
    writable = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not writable


def _is_roots_program(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == 0
        and not status.st_mode & _OTHERS_WRITE
        and status.st_mode & _EXECUTE != 0
    )

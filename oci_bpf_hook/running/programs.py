"""Finds the engines' programs that are installed on this host and that root may safely run.

The path of a program must not come from others, so neither another process's command line nor the
environment that sudo(8) hands on is used.  There is a fixed list of directories, and a program in
one of them counts only if nobody but root can put something else in its place.
"""

import os
import stat
from collections.abc import Iterator

# The directories of distributions and of the engines' own packages, in the order that engines use.
PLACES = (
    *("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"),
    *("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/libexec"),
    *("/usr/local/lib/podman", "/usr/libexec/crio", "/usr/local/libexec/crio"),
    *("/usr/lib/cri-o-runc/sbin", "/usr/libexec/docker", "/opt/containerd/bin"),
)
# How many links in a path the kernel follows (Linux: include/linux/namei.h, MAXSYMLINKS).
_LINKS = 40
_OTHERS_WRITE = 0o022
_EXECUTE = 0o111

# The device and inode of a file.
Identity = tuple[int, int]


def find(name: str) -> str | None:
    """The path of the first installed program `name`, or None."""
    return next((path for path in _paths(name) if trusted(path) is not None), None)


def is_place_of(path: str, name: str) -> bool:
    """Whether the program `name` is installed at `path`, which isn't opened if it is elsewhere."""
    return path in _paths(name) and trusted(path) is not None


def is_program(file: os.stat_result, link: str, name: str) -> bool:
    """Whether a process's executable is the installed program `name`.

    `file` is the status of its /proc/PID/exe, and `link` the text of that link.  An executable that
    a newer package has replaced meanwhile also counts, if it had the path of the installed program
    and is on the same filesystem.
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
    """The file that the absolute `path` leads to; None if anybody but root can change it.

    It is also None if the file isn't an executable program.
    """
    status = roots_alone(path)
    if status is None or not _is_roots_program(status):
        return None
    return status.st_dev, status.st_ino


def roots_alone(path: str) -> os.stat_result | None:
    """The status of the file that `path` leads to; None if anybody but root decides which it is.

    Every directory and link on the way has to be root's, and others may not write to any of these
    directories.  A directory with the sticky bit, such as /tmp, may be writable: nobody else can
    move what is root's in there.
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

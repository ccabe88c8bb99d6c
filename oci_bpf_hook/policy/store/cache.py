"""Loads the policy that is in force, from its compiled form if that is valid.

/etc/oci-bpf-hook/policy.yaml is the policy; if it doesn't exist, the built-in policy is.  Reading
it needs YAML and a JSON Schema, and takes far longer than all else that the hook does.  So its
compiled form is kept in /run/oci-bpf-hook, and is used only if it was made from exactly this file
and is undamaged.  A policy that can't be read allows nothing: it is an error.
"""

import posix

from ... import __version__, paths
from ...errors import BAD_POLICY, HookError
from ...files import open_trusted, read_all
from ...paths import CACHE, POLICY, RUN
from ...text.strict_json import load_json
from ..compiled import END, Compiled

# The ids of the users and groups that a policy names come from these files, which may change.
_OWNERS = ("/etc/passwd", "/etc/group")


def in_force(
    *, header: str | None = None, etc: str = POLICY, run: str = RUN, in_memory: bool = False
) -> Compiled:
    """The policy in force, with the running kernel's names.

    `header` is the path of a C header with the names, for a kernel without BTF.  `etc` is the
    policy's file, and `run` the directory of its compiled form.  With `in_memory` the compiled form
    is read as a whole; otherwise its file stays open and is read as far as needed.  Raises
    HookError (BAD_POLICY, or USAGE for the header).
    """
    source = open_source(etc)
    try:
        identity = identity_of(source, header)
        cached = _cached(run, identity, in_memory=in_memory)
        if cached:
            return cached
        from .source import compile_policy, in_turn

        return in_turn(
            run,
            lambda: _cached(run, identity, in_memory=in_memory),
            lambda: _of(compile_policy(source, identity, header, etc, run)),
        )
    finally:
        if source >= 0:
            posix.close(source)


def open_source(etc: str) -> int:
    """An fd for reading the policy's file `etc`, for the caller to close; -1 if there is none.

    Raises HookError (BAD_POLICY) if it can't be read or trusted.
    """
    try:
        return open_trusted(etc)
    except FileNotFoundError:
        return -1
    except OSError as error:
        from errno import ELOOP, ENOTDIR

        why = error.strerror
        if error.errno in (ELOOP, ENOTDIR):  # O_NOFOLLOW refuses a link with one of these.
            why = "it is a symbolic link, or what should be a directory above it is one"
        raise HookError(BAD_POLICY, f"{etc} can't be read: {why}") from None


def identity_of(source: int, header: str | None) -> list[object]:
    """What a compiled form is made from: our version, the kernel, and the state of the files.

    `source` is the fd of the policy's file, or -1 for the built-in policy.  A compiled form is
    valid as long as this is the same list.
    """
    kernel = posix.uname()
    identity: list[object] = [__version__, kernel.release, kernel.version, header]
    # The built-in policy's file tells installations apart that have the same version.
    files: list[int | str] = [paths.BUILTIN]
    if header:
        files.append(header)
    if source >= 0:
        # The policy's file comes last, because `watch` takes the last item for its time of change.
        files += [*_OWNERS, source]
    for file in files:
        try:
            status = posix.stat(file)
        except OSError:  # Whoever reads the file reports what is wrong.
            identity.append(None)
            continue
        identity += [status.st_dev, status.st_ino, status.st_size]
        identity += [status.st_mtime_ns, status.st_ctime_ns]
    return identity


def _cached(run: str, identity: list[object], *, in_memory: bool) -> Compiled | None:
    """The policy from the compiled form kept in `run` if that has this `identity`, or None."""
    try:
        fd = open_trusted(f"{run}/{CACHE}")
    except (OSError, HookError):
        return None
    kept = False
    try:
        size = posix.fstat(fd).st_size - END.size
        if size < 0 or posix.pread(fd, END.size, size) != END.pack(size):
            return None
        if in_memory:
            compiled = _of(read_all(fd))
        else:
            compiled = Compiled(lambda offset, size: posix.pread(fd, size, offset), load_json)
        kept = not in_memory and compiled.identity == identity
        return compiled if compiled.identity == identity else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # It is damaged.
        return None
    finally:
        if not kept:
            posix.close(fd)


def _of(compiled: bytes) -> Compiled:
    """The policy in the bytes of its `compiled` form."""
    return Compiled(lambda offset, size: compiled[offset : offset + size], load_json)

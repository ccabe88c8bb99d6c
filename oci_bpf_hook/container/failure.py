"""Says why a container's process can't be looked at, in sentences for people.

It is imported only once that has failed.
"""

from ..errors import BAD_STATE, NO_BROKER, HookError


def unreachable(pid: int | None, error: OSError) -> HookError:
    """The error that says why the process `pid` can't be looked at, which failed with `error`."""
    if isinstance(error, PermissionError):
        return HookError(
            NO_BROKER,
            f"the hook may not look at process {pid} ({error.strerror}): the engine's service "
            "lacks CAP_SYS_PTRACE or CAP_SYS_ADMIN in the initial user namespace",
        )
    # ENOENT: no process has the pid; ESRCH: the process has just died.
    if not isinstance(error, FileNotFoundError | ProcessLookupError):
        return HookError(
            BAD_STATE, f"the container's process {pid} can't be looked at ({error.strerror})"
        )
    return HookError(
        BAD_STATE,
        f"the container's process {pid} is gone ({error.strerror}); it died before the hook ran",
    )

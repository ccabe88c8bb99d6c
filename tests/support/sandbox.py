"""Set-user-id sandboxes, by which a user without any privilege gets a user namespace of root's."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .engines import make_work_directory, remove_work_directory

TOOLS = ("bwrap", "firejail")


@contextmanager
def bubblewrap() -> Iterator[list[str]]:
    """A command that runs another in a sandbox of bubblewrap's, which is set-user-id here alone."""
    directory = make_work_directory()
    try:
        program = Path(shutil.copy("/usr/bin/bwrap", directory))
        program.chmod(stat.S_ISUID | 0o755)
        yield [str(program), "--unshare-user", "--dev-bind", "/", "/", "--dev", "/dev", "--"]
    finally:
        remove_work_directory(directory)


# As it is packaged; without a profile, of which the host's may keep things from a test.
FIREJAIL = ["firejail", "--quiet", "--noprofile", "--noroot", "--"]

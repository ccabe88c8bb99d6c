"""A user's podman with the hook, and the broker that decides for it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .broker import Broker
from .podman import World
from .scratch import LAUNCHER, install
from .users import ALICE, users


@contextmanager
def installed() -> Iterator[tuple[World, Path]]:
    """alice's podman while a broker runs, and the launcher of a hook that she can run."""
    with (
        users(),
        tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory,
        World(ALICE) as world,
    ):
        os.chmod(directory, 0o755)
        launcher = install(Path(directory) / "installed")
        world.install_hook(launcher, LAUNCHER.with_suffix(".json"))
        with Broker():
            yield world, launcher

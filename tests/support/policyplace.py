"""A policy file and a run directory that are nobody else's, for one test."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oci_bpf_hook.policy.compiled import Compiled
from oci_bpf_hook.policy.store.cache import in_force
from tests.support.subjects import subject as asker

DENY = "version: 1\nrules:\n- {{name: {name}, deny: because}}\n"


class Place:
    """A policy file and a run directory of their own, both root's all the way up."""

    def __init__(self, directory: Path) -> None:
        self.etc = directory / "etc" / "policy.yaml"
        self.run = directory / "run"
        self.etc.parent.mkdir()

    def write(self, text: str, *, age: float = 60) -> None:
        new = self.etc.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.etc)
        # A file that has just changed is not believed to stay as it is.
        os.utime(self.etc, (time.time() - age, time.time() - age))

    def policy(self) -> Compiled:
        return in_force(etc=str(self.etc), run=str(self.run))

    def name(self) -> str:
        (rule,) = self.policy().rules(asker())
        return str(rule["name"])

    @property
    def cache(self) -> Path:
        return self.run / "policy.compiled"


@contextmanager
def a_place() -> Iterator[Place]:
    """One, for as long as this lasts."""
    # pytest's own temporary directories are below /tmp, which others can write.
    directory = Path("/run") / f"policy-test-{os.getpid()}"
    directory.mkdir(mode=0o755)
    try:
        yield Place(directory)
    finally:
        shutil.rmtree(directory)

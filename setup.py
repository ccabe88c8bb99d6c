"""What pyproject.toml can't say of the wheel: it has nothing of an older checkout's build."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Build(build_py):
    """Builds the package afresh, because setuptools keeps what it once put into build/lib.

    Otherwise the wheel would still have modules that have since been moved.
    """

    def run(self) -> None:
        """Remove the package that was built before, and build it."""
        shutil.rmtree(Path(self.build_lib, "oci_bpf_hook"), ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": Build})

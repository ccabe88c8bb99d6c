"""Turning the guard on, as far as that needs neither a kernel with LSM hooks nor its object."""

import os
from pathlib import Path

import pytest

from oci_bpf_hook.guard.lsm import load


def test_users_may_reach_the_broker_in_the_directory_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes the directory first makes it for all, whatever the umask is."""
    run = tmp_path / "run"
    monkeypatch.setattr(load, "GUARD_LOCK", str(run / "guard.lock"))
    monkeypatch.setattr(load, "PINS", str(tmp_path / "pins"))
    before = os.umask(0o077)
    try:
        with load._alone():
            assert (run / "guard.lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert run.stat().st_mode & 0o7777 == 0o755

"""audit/read.py: what is read back of an audit trail, whatever is in the file."""

import gzip
import json
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bpf_hook.audit.read import Granted, grants, last_refusal
from oci_bpf_hook.errors import UNKNOWN_NAME
from tests.support.places import ROOT
from tests.support.policy import AUDIT, CACHE, EVERYTHING, in_force
from tests.support.scratch import Scratch, io

ASKED = io(delegate_cmds="map_create", delegate_maps="hash")


def known(identity: str, *, user: int = 0, since: float = 0) -> Granted:
    return grants({(identity, user): since})[identity, user]


def test_a_grant_and_a_refusal() -> None:
    with Scratch() as scratch:
        assert scratch.hook(ASKED, id="granted-one").returncode == 0
        with in_force("version: 1\nrules: []\n"):
            assert scratch.hook(ASKED, id="refused-one").returncode == 12
    assert known("granted-one").rule == "everything"
    assert last_refusal("granted-one") is None
    refusal = last_refusal("refused-one")
    assert refusal is not None
    assert "no rule of the policy" in refusal["problems"][0]
    # An id's beginning will do; the last line about it counts.
    assert last_refusal("refused-") == refusal


def test_no_file_stays_open() -> None:
    """inspect --watch asks again and again, and may go on for weeks."""
    with in_force(None):
        for _ in range(2):
            grants({("x", 0): 0})
        assert CACHE.exists()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            grants({("x", 0): 0})
        assert len(os.listdir("/proc/self/fd")) == before


def test_rotated_away() -> None:
    with Scratch() as scratch:
        assert scratch.hook(ASKED, id="rotated").returncode == 0
    old = AUDIT.with_name(f"{AUDIT.name}.1")
    AUDIT.rename(old)
    try:
        assert known("rotated").rule == "everything"
    finally:
        old.rename(AUDIT)


@contextmanager
def a_trail(directory: Path) -> Iterator[Path]:
    """One of its own in that directory, with a grant in it."""
    directory.chmod(0o755)
    path = directory / "audit.jsonl"
    with in_force(f"{EVERYTHING}audit: {{to: {path}}}\n"), Scratch() as scratch:
        assert scratch.hook(ASKED, id="web").returncode == 0
        yield path


def flood(path: Path, mebibytes: int, *, without_an_end: bool = False) -> None:
    """Have so much of somebody's refusals written behind what is there."""
    line = json.dumps({"container": "x" * 3900, "outcome": "refused"}, separators=(",", ":"))
    with path.open("a") as file:
        for _ in range(mebibytes << 20 >> 12):
            file.write(line if without_an_end else f"{line}\n")


def test_behind_any_amount_of_refusals(tmp_path: Path) -> None:
    """Read in blocks, from the end."""
    with a_trail(tmp_path) as path:
        flood(path, 30)
        tracemalloc.start()
        try:
            assert known("web").rule == "everything"
            # Somebody else's is none, nor is one that isn't there any more.
            assert grants({("web", 1): 0, ("x" * 3900, 0): 0}) == {}
            assert last_refusal("web") is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


def test_behind_what_is_no_line(tmp_path: Path) -> None:
    with a_trail(tmp_path) as path:
        flood(path, 5, without_an_end=True)
        with path.open("a") as file:
            file.write("\n\n{")
        assert known("web").rule == "everything"


XZ = "compresscmd /bin/xz\ncompressext .xz\nuncompresscmd /bin/unxz\n"


@pytest.mark.parametrize("how", ["", "dateext\ndateformat -%Y%m%d0{turn}\n", XZ])
def test_in_whatever_file_logrotate_has_it(tmp_path: Path, how: str) -> None:
    shipped = (ROOT / "contrib" / "logrotate" / "oci-bpf-hook").read_text()
    with a_trail(tmp_path) as path, Scratch() as scratch:
        text = shipped.replace("/var/log/oci-bpf-hook/audit.jsonl", str(path))
        config = tmp_path / "logrotate.conf"
        rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(config)]
        for turn in range(3):
            config.write_text(how.format(turn=turn) + text)
            config.chmod(0o644)
            subprocess.run(rotate, check=True)
            assert known("web").rule == "everything"
            unknown = io(delegate_cmds="no_such")
            assert scratch.hook(unknown, id=f"refused-{turn}").returncode == UNKNOWN_NAME
            assert known("web").rule == "everything"
            assert last_refusal("refused-0") is not None
        # By another format of its dates than the last time's it doesn't know what to compress.
        for dated in tmp_path.glob("audit.jsonl-*"):
            subprocess.run(["gzip", dated], check=True)
        assert len(list(tmp_path.glob("audit.jsonl*z"))) == (3 if "date" in how else 2)
        assert known("web").rule == "everything"


def test_what_is_older_than_a_container_isn_t_read(tmp_path: Path) -> None:
    with a_trail(tmp_path) as path:
        now = path.stat().st_mtime
        assert known("web", since=now).rule == "everything"
        # A clock may be set by hours, and not by days.
        assert grants({("web", 0): now + 3 * 86_400}) == {}
        old = path.rename(tmp_path / "audit.jsonl.1")
        os.utime(old, (now - 9e6, now - 9e6))
        assert grants({("web", 0): now}) == {}
        assert known("web").rule == "everything"


@pytest.mark.parametrize("name", ["audit.jsonl.2.gz", "audit.jsonl.3.xz", "audit.jsonl.4.bz2"])
def test_a_file_that_is_none(tmp_path: Path, name: str) -> None:
    with a_trail(tmp_path) as path:
        whole = gzip.compress(path.read_bytes() * 9)
        for data in (b"", b"x", whole[: len(whole) // 2]):
            (tmp_path / name).write_bytes(data)
            assert known("web").rule == "everything"
            assert grants({("nobody", 0): 0}) == {}


def test_no_file_is_named() -> None:
    identity = "granted-one"
    assert known(identity).rule == "everything"
    for where in ("syslog", "none", "/does/not/exist"):
        with in_force(f"version: 1\naudit: {{to: {where}, required: false}}\nrules: []\n"):
            assert grants({(identity, 0): 0}) == {}
            assert last_refusal(identity) is None


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.binary(),
            st.builds(
                lambda value: json.dumps(value).encode(),
                st.dictionaries(
                    st.sampled_from(
                        ["container", "outcome", "rule", "requester", "granted", "requested"]
                    ),
                    st.sampled_from(
                        ["granted", "refused", 1, None, [], {}, {"container": 1, "user": 0}]
                    ),
                ),
            ),
        )
    )
)
def test_any_file(lines: list[bytes]) -> None:
    AUDIT.parent.mkdir(exist_ok=True)
    before = AUDIT.read_bytes() if AUDIT.exists() else b""
    AUDIT.write_bytes(b"\n".join(lines))
    try:
        grants({("granted", 0): 0})
        last_refusal("granted")
    finally:
        AUDIT.write_bytes(before)

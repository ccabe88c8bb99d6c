"""Whose an id of the host's is, by its database and by files of subordinate ids."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.users import user_of
from tests.support.users import ALICE, BOB, users


@pytest.fixture(scope="module", autouse=True)
def everybody() -> Iterator[None]:
    with users():
        yield


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (f"{ALICE.name}:7000000:10\n", ALICE.uid),
        (f"{ALICE.uid}:7000000:10\n", ALICE.uid),
        (f"{ALICE.name}:7000000:5\n", 7000005),
        (f"{ALICE.name}:7000006:5\n", 7000005),
        (f"{ALICE.name}:7000000:10\n{ALICE.name}:7000004:2\n", ALICE.uid),
        # Whose is it then?
        (f"{ALICE.name}:7000000:10\n{BOB.name}:7000005:1\n", 7000005),
        ("obh-nobody:7000000:10\n", 7000005),
        ("# a comment\n:::\nx\n\n7000:x:y\n", 7000005),
        (f"{ALICE.name}:-7000000:99999999\n", 7000005),
    ],
)
def test_whose_id_it_is(tmp_path: Path, lines: str, wanted: int) -> None:
    file = tmp_path / "subuid"
    file.write_text(lines)
    assert user_of(7000005, str(file)) == wanted


def test_an_account_is_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text(f"{BOB.name}:0:{ALICE.uid + 10}\n")
    assert user_of(ALICE.uid, str(file)) == ALICE.uid
    assert user_of(0, str(file)) == 0


def test_there_is_no_such_file(tmp_path: Path) -> None:
    assert user_of(7000005, str(tmp_path / "missing")) == 7000005


def test_the_hosts_own_tool_agrees() -> None:
    """What getsubids(1) says of alice is what her ids stand for."""
    done = subprocess.run(["getsubids", ALICE.name], capture_output=True, text=True, check=True)
    _, _, first, count = done.stdout.split()
    assert user_of(int(first)) == user_of(int(first) + int(count) - 1) == ALICE.uid
    assert user_of(int(first) + int(count)) != ALICE.uid

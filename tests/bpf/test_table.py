"""table.py and the table itself, bpf_enums.json: what stands in for a kernel without BTF."""

import json
import os
import re
import subprocess
import sys

import pytest

from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Kind
from oci_bpf_hook.bpf.table import Table
from oci_bpf_hook.kernel.enums import table
from tests.support.places import ROOT

FILE = ROOT / "oci_bpf_hook" / "bpf_enums.json"
BY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)


def rows(kind: Kind) -> list[tuple[str, dict[str, int | str]]]:
    return list(json.loads(FILE.read_text())["enums"][kind.enum].items())


def release(text: str) -> tuple[int, int]:
    assert re.fullmatch(r"[0-9]+\.[0-9]+", text)
    major, minor = map(int, text.split("."))
    return major, minor


def test_the_table_has_every_enum() -> None:
    found = table().enums(KINDS)
    assert list(found) == [kind.option for kind in KINDS]
    # As of Linux 7.2; a table that loses names is a mistake.
    sizes = [len(found[kind.option].values) for kind in KINDS]
    assert all(size >= least for size, least in zip(sizes, (40, 38, 33, 62), strict=True))


def test_only_the_kinds_that_are_asked_for() -> None:
    assert list(table().enums((PROGS, CMDS))) == [PROGS.option, CMDS.option]
    assert table().enums(()) == {}


def test_values_by_hand() -> None:
    found = table().enums(KINDS)
    assert found[CMDS.option].values["token_create"] == 36
    assert found[MAPS.option].values["arena"] == 33
    assert found[PROGS.option].values["netfilter"] == 32
    assert found[ATTACHS.option].values["netkit_peer"] == 55


@BY_KIND
def test_every_bit_fits_the_mask(kind: Kind) -> None:
    assert max(table().enums((kind,))[kind.option].names) < 64


@BY_KIND
def test_rows_are_in_the_enums_own_order(kind: Kind) -> None:
    values = [row["value"] for _, row in rows(kind)]
    assert values == sorted(values, key=int)


@BY_KIND
def test_later_values_came_with_later_releases(kind: Kind) -> None:
    # An enumerator is added at the end: one that came first and has more is a slip of the pen.
    releases = [release(str(row.get("since", "6.9"))) for _, row in rows(kind)]
    assert releases == sorted(releases)
    assert all(row.keys() <= {"value", "since"} for _, row in rows(kind))


@BY_KIND
def test_since_is_what_the_file_says(kind: Kind) -> None:
    for name, row in rows(kind):
        short = name.removeprefix(kind.prefix).lower()
        assert table().since(kind, short) == row.get("since", "6.9")


def test_since_by_hand() -> None:
    assert table().since(CMDS, "prog_load") == "6.9"
    assert table().since(CMDS, "prog_stream_read_by_fd") == "6.17"
    assert table().since(ATTACHS, "trace_uprobe_session") == "6.13"


def test_the_aliases_are_the_kernels() -> None:
    found = table().enums(KINDS)
    aliases = {
        (kind.option, name, enum.names[value])
        for kind in KINDS
        for enum in (found[kind.option],)
        for name, value in enum.values.items()
        if enum.names[value] != name
    }
    assert aliases == {
        ("delegate_cmds", "prog_run", "prog_test_run"),
        ("delegate_maps", "cgroup_storage", "cgroup_storage_deprecated"),
        ("delegate_maps", "percpu_cgroup_storage", "percpu_cgroup_storage_deprecated"),
    }


def test_the_file_says_what_it_is() -> None:
    assert "include/uapi/linux/bpf.h" in json.loads(FILE.read_text())["about"]


def test_a_table_is_made_of_text() -> None:
    text = '{"enums": {"bpf_cmd": {"BPF_A": {"value": 0}, "BPF_B": {"value": 1, "since": "9.9"}}}}'
    made = Table(text)
    assert dict(made.enums((CMDS,))[CMDS.option].values) == {"a": 0, "b": 1}
    assert (made.since(CMDS, "a"), made.since(CMDS, "b")) == ("6.9", "9.9")


def test_the_table_is_found_from_anywhere() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from oci_bpf_hook.kernel.enums import table; from oci_bpf_hook.bpf.names import CMDS;"
        "print(table().since(CMDS, 'prog_assoc_struct_ops'))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code, str(ROOT)],
        cwd="/",
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "7.0\n"

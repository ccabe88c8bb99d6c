"""contrib/update-bpf-enums, run as a maintainer runs it: on a copy of the package."""

import difflib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, MAPS
from oci_bpf_hook.bpf.table import Table
from oci_bpf_hook.kernel.enums import table
from tests.bpf.test_header import LINUX_BPF_H, as_header
from tests.support.places import ROOT

TODAY = "".join(as_header(kind) for kind in KINDS)


class Checkout:
    """A copy of what the script touches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = path / "oci_bpf_hook" / "bpf_enums.json"
        self.script = path / "contrib" / "update-bpf-enums"
        shutil.copytree(
            ROOT / "oci_bpf_hook",
            path / "oci_bpf_hook",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        self.script.parent.mkdir()
        shutil.copy(ROOT / "contrib" / "update-bpf-enums", self.script)
        self.before = self.text()

    def text(self) -> str:
        return self.table.read_text()

    def run(
        self, header: str | Path, *options: str, release: str = "7.3", status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run the script on the `header`, a path or the text of one."""
        if isinstance(header, str):
            (self.path / "bpf.h").write_text(header)
            header = self.path / "bpf.h"
        before = sorted(self.table.parent.iterdir())
        result = subprocess.run(
            [str(self.script), "--header", str(header), "--release", release, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        assert sorted(self.table.parent.iterdir()) == before, "it left something behind"
        return result

    def refused(self, header: str | Path, says: str) -> None:
        result = self.run(header, status=1)
        assert says in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
        assert self.text() == self.before

    def state(self) -> tuple[int, ...]:
        """What a write would change; reading may move the time of access."""
        stat = self.table.stat()
        return stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def changes(self) -> list[str]:
        """The lines that came and went."""
        diff = difflib.ndiff(self.before.splitlines(), self.text().splitlines())
        return [line for line in diff if line[0] in "+-"]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def with_new(name: str, behind: str, text: str = TODAY) -> str:
    assert f"\t{behind},\n" in text
    return text.replace(f"\t{behind},\n", f"\t{behind},\n\t{name},\n")


NEW = with_new("BPF_PROG_TELEPORT", "BPF_PROG_ASSOC_STRUCT_OPS")


def test_a_new_name_is_a_new_line_and_nothing_else(checkout: Checkout) -> None:
    result = checkout.run(NEW)
    assert result.stdout == "added BPF_PROG_TELEPORT\n"
    assert checkout.changes() == [
        '-       "BPF_PROG_ASSOC_STRUCT_OPS": {"value": 38, "since": "7.0"}',
        '+       "BPF_PROG_ASSOC_STRUCT_OPS": {"value": 38, "since": "7.0"},',
        '+       "BPF_PROG_TELEPORT": {"value": 39, "since": "7.3"}',
    ]
    made = Table(checkout.text())
    assert made.enums(KINDS)[CMDS.option].values["prog_teleport"] == 39
    assert made.since(CMDS, "prog_teleport") == "7.3"


def test_names_of_every_enum_in_the_headers_order(checkout: Checkout) -> None:
    text = NEW
    for kind in KINDS[1:]:
        last = list(table().enums((kind,))[kind.option].values)[-1]
        text = with_new(f"{kind.prefix}Z,\n\t{kind.prefix}Y", kind.prefix + last.upper(), text)
    added = ["BPF_PROG_TELEPORT"]
    added += [kind.prefix + letter for kind in KINDS[1:] for letter in "ZY"]
    assert checkout.run(text).stdout.split() == [word for name in added for word in ("added", name)]
    found = Table(checkout.text()).enums(KINDS)
    assert list(found[ATTACHS.option].values.items())[-2:] == [("z", 62), ("y", 63)]


def test_a_second_run_has_nothing_to_do(checkout: Checkout) -> None:
    checkout.run(NEW)
    first = checkout.state()
    assert checkout.run(NEW, release="7.4").stdout == ""
    checkout.run(NEW, "--check")
    assert checkout.state() == first


def test_check_says_what_is_lacking_and_writes_nothing(checkout: Checkout) -> None:
    before = checkout.state()
    assert checkout.run(NEW, "--check", status=1).stdout == "lacks BPF_PROG_TELEPORT\n"
    assert checkout.state() == before
    checkout.run(TODAY, "--check")
    assert checkout.state() == before


def test_an_older_header_adds_nothing(checkout: Checkout) -> None:
    if not LINUX_BPF_H.exists():
        pytest.skip(f"there is no {LINUX_BPF_H} (Debian's linux-libc-dev)")
    before = checkout.state()
    checkout.run(LINUX_BPF_H, release="6.1")
    checkout.run(LINUX_BPF_H, "--check", release="6.1")
    assert checkout.state() == before


def test_known_releases_stay_whatever_the_header_is_of(checkout: Checkout) -> None:
    checkout.run(TODAY, release="99.9")
    checkout.run(TODAY, release="2.0")
    assert checkout.text() == checkout.before


def test_a_new_alias_stands_beside_what_it_repeats(checkout: Checkout) -> None:
    text = with_new("BPF_MAP_TYPE_DICT = BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_HASH")
    # As the kernel renames: the new name comes first, and bpffs shows that.
    text = text.replace("\tBPF_XDP,\n", "\tBPF_XDP_RENAMED,\n\tBPF_XDP = BPF_XDP_RENAMED,\n")
    checkout.run(text)
    assert [line for line in checkout.changes() if line[0] == "-"] == []
    found = Table(checkout.text()).enums(KINDS)
    assert found[MAPS.option].names[1] == "hash"
    assert found[MAPS.option].values["dict"] == 1
    assert found[ATTACHS.option].names[37] == "xdp_renamed"
    assert found[ATTACHS.option].values["xdp"] == 37
    lines = [line.strip() for line in checkout.text().splitlines()]
    place = lines.index('"BPF_XDP_RENAMED": {"value": 37, "since": "7.3"},')
    assert lines[place + 1] == '"BPF_XDP": {"value": 37},'


def test_a_header_that_contradicts_is_refused(checkout: Checkout) -> None:
    swapped = NEW.replace("BPF_OBJ_PIN,", "X,").replace("BPF_OBJ_GET,", "BPF_OBJ_PIN,")
    checkout.refused(
        swapped.replace("\tX,", "\tBPF_OBJ_GET,"),
        "BPF_OBJ_PIN is 7 in the header and 6 in the table",
    )
    inserted = with_new("BPF_SURPRISE", "BPF_XDP")
    checkout.refused(inserted, "BPF_SK_SKB_VERDICT is 39 in the header and 38 in the table")


def test_a_bit_that_means_something_else_is_refused(checkout: Checkout) -> None:
    # What the table had ahead of a release came differently.
    text = TODAY.replace("BPF_PROG_ASSOC_STRUCT_OPS,", "BPF_PROG_TELEPORT,")
    checkout.refused(
        text, "38 is BPF_PROG_TELEPORT in the header and BPF_PROG_ASSOC_STRUCT_OPS in the table"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "enum bpf_cmd is defined 0 times, not once"),
        ("".join(map(as_header, KINDS[:3])), "enum bpf_attach_type is defined 0 times"),
        (TODAY + as_header(CMDS), "enum bpf_cmd is defined 2 times"),
        (TODAY.replace("\tBPF_XDP,", "#ifdef X\n\tBPF_XDP,\n#endif"), "conditional #ifdef"),
        (
            TODAY.replace("\tBPF_XDP,", ""),
            "BPF_SK_SKB_VERDICT is 37 in the header and 38 in the table",
        ),
    ],
)
def test_what_is_no_such_header_is_refused(checkout: Checkout, text: str, says: str) -> None:
    checkout.refused(text, says)


def test_a_header_that_cant_be_read(checkout: Checkout) -> None:
    checkout.refused(checkout.path / "missing.h", "missing.h: No such file or directory")
    checkout.refused(checkout.path, "Is a directory")


@pytest.mark.parametrize("release", ["", "7", "v7.3", "7.3-rc1", "7.3.1", "7.3\n", "\u0667.3"])
def test_what_is_no_release(checkout: Checkout, release: str) -> None:
    result = checkout.run(NEW, release=release, status=2)
    assert "isn't a release; write it as 7.3" in result.stderr
    assert checkout.text() == checkout.before


def test_both_options_are_needed(checkout: Checkout) -> None:
    for options in ([], ["--header", "x"], ["--release", "7.3"]):
        result = subprocess.run([checkout.script, *options], capture_output=True, check=False)
        assert result.returncode == 2


def test_the_file_is_replaced_at_once(checkout: Checkout) -> None:
    # Who has the old file open reads the old table to its end.
    checkout.table.chmod(0o640)
    link = checkout.path / "old"
    os.link(checkout.table, link)
    checkout.run(NEW)
    assert link.read_text() == checkout.before
    assert checkout.text() != checkout.before
    assert checkout.table.stat().st_mode & 0o7777 == 0o640


def test_the_script_is_found_through_a_link(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "update"
    link.symlink_to(checkout.script)
    checkout.script = link
    checkout.run(NEW)
    assert "BPF_PROG_TELEPORT" in checkout.text()


def test_it_needs_nothing_but_python(checkout: Checkout) -> None:
    first = checkout.script.read_text().splitlines()[0]
    assert first == "#!/usr/bin/python3"
    assert os.access(ROOT / "contrib" / "update-bpf-enums", os.X_OK)


def test_the_comment_at_the_top_stays(checkout: Checkout) -> None:
    checkout.run(NEW)
    assert json.loads(checkout.text())["about"] == json.loads(checkout.before)["about"]

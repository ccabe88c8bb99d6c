"""The audit trail: whole lines, whatever is in them and whoever writes at the same time."""

import json
import multiprocessing
import os
import posix
import subprocess
from mmap import PAGESIZE
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.audit.write import line, write
from oci_bpf_hook.errors import REFUSED, HookError
from tests.support.places import ROOT

SCHEMA = json.loads((ROOT / "schema" / "audit.schema.json").read_text())


def record(to: str, fields: dict[str, object], *, required: bool) -> None:
    write(to, line(fields), required=required)


def _write(path: str, number: int) -> None:
    for count in range(50):
        record(path, {"n": number, "count": count, "fill": "x" * 3000}, required=True)


def test_lines_of_many_writers_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    path.parent.mkdir()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(path), number)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((one["n"], one["count"]) for one in found) == [
        (number, count) for number in range(8) for count in range(50)
    ]


def test_the_directory_is_made_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "log" / "audit.jsonl"
    record(str(path), {}, required=True)
    assert path.stat().st_mode & 0o007 == 0


def test_the_directory_is_made_by_somebody_else_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first containers that ask may well start together."""
    path = tmp_path / "log" / "audit.jsonl"
    mkdir = posix.mkdir

    def both(directory: str, mode: int) -> None:
        mkdir(directory, mode)
        mkdir(directory, mode)

    monkeypatch.setattr(posix, "mkdir", both)
    record(str(path), {"a": 1}, required=True)
    assert json.loads(path.read_text())["a"] == 1


def test_a_rotated_file_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    record(str(path), {"a": 1}, required=True)
    path.rename(tmp_path / "audit.jsonl.1")
    record(str(path), {"a": 2}, required=True)
    assert json.loads(path.read_text())["a"] == 2


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "full"])
def test_what_can_t_be_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/full")
    with pytest.raises(HookError) as refused:
        record(str(path), {}, required=True)
    assert refused.value.code == REFUSED
    assert str(path) in str(refused.value)
    record(str(path), {}, required=False)


def test_a_line_that_fits_in_part(tmp_path: Path) -> None:
    """A disk that fills up takes half a line, to which the next one must not be glued."""
    path = tmp_path / "audit.jsonl"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={4 * PAGESIZE}", "none", tmp_path], check=True
    )
    try:
        for number in range(4):
            record(str(path), {"n": number, "fill": "x" * (PAGESIZE * 3 // 4)}, required=True)
        with pytest.raises(HookError):
            record(str(path), {"n": 4, "fill": "x" * (PAGESIZE * 5 // 4)}, required=True)
        record(str(path), {"n": 5}, required=True)
        lines = [json.loads(text)["n"] for text in path.read_text().splitlines()]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert lines == [0, 1, 2, 3, 5]


def test_nobody_cuts_another_s_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came behind the half of a line is there to stay."""
    path = tmp_path / "audit.jsonl"
    write_all = posix.write

    def half(fd: int, data: bytes) -> int:
        written = write_all(fd, data[: len(data) // 2])
        with path.open("a") as file:
            file.write('{"theirs":1}\n')
        return written

    monkeypatch.setattr(posix, "write", half)
    with pytest.raises(HookError):
        record(str(path), {"n": 1}, required=True)
    assert path.read_text().endswith('{"theirs":1}\n')


def test_none(tmp_path: Path) -> None:
    record("none", {"a": 1}, required=True)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def rotation(directory: Path, path: Path) -> list[str]:
    """A command that rotates `path` as what is shipped says of the audit trail."""
    text = (ROOT / "contrib" / "logrotate" / "oci-bpf-hook").read_text()
    assert "/var/log/oci-bpf-hook/audit.jsonl" in text
    config = directory / "logrotate.conf"
    config.write_text(text.replace("/var/log/oci-bpf-hook/audit.jsonl", str(path)))
    config.chmod(0o644)
    return ["logrotate", "--state", str(directory / "state"), str(config)]


def test_the_shipped_rotation(tmp_path: Path) -> None:
    """logrotate takes the file away, and the next line makes a new one."""
    path = tmp_path / "audit.jsonl"
    record(str(path), {"n": 1}, required=True)
    subprocess.run([*rotation(tmp_path, path), "--force"], check=True)
    record(str(path), {"n": 2}, required=True)
    assert json.loads(path.read_text())["n"] == 2
    assert json.loads((tmp_path / "audit.jsonl.1").read_text())["n"] == 1


def test_one_that_has_grown_large_is_rotated_before_its_time(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    rotate = rotation(tmp_path, path)
    record(str(path), {"n": 1}, required=True)
    for size, rotated in ((99 << 20, False), (101 << 20, True)):
        os.truncate(path, size)
        subprocess.run(rotate, check=True)
        assert (old.exists(), path.stat().st_size) == (rotated, 0 if rotated else size)

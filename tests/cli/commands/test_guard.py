"""`oci-bpf-hook guard` where there can be none: what it says, and that it leaves nothing.

What it does on a kernel that loads it, the machines' tests show (tests/machines).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.errors import DONE, FOUND, KERNEL_CANNOT, MOUNT_FAILED, NO_BROKER, HookError
from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm import lists, load, release
from oci_bpf_hook.guard.lsm.refusals import Refusal
from oci_bpf_hook.kernel import process, syscalls
from oci_bpf_hook.paths import GUARD, PINS
from tests.support.command import command
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT
from tests.support.scratch import Scratch, io

SCHEMA = json.loads((ROOT / "schema" / "guard.schema.json").read_text())


@pytest.fixture(autouse=True)
def place() -> Iterator[Path]:
    """A bpffs without a guard."""
    with bpffs() as place:
        yield place


def answer(*arguments: str) -> tuple[int, Any]:
    """The exit code and the JSON, which is as its part of the schema says."""
    done = command("guard", *arguments, "--json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(found, {**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{arguments[0]}"}]})
    return done.returncode, found


def pinned(place: Path) -> set[str]:
    """All that is pinned; what the kernel itself has there isn't, and has a dot in its name."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if "." not in path.name}


def test_a_kernel_that_loads_none(place: Path) -> None:
    """Where LSM programs are refused even to root, as on the machines that these tests run on."""
    done = command("guard", "on")
    assert (done.returncode, done.stdout) == (KERNEL_CANNOT, "")
    (line,) = done.stderr.splitlines()
    assert "the guard can't be loaded, load: Operation not permitted, though root asks" in line
    assert "lets nobody load programs for LSM hooks; libbpf says: prog 'token_create'" in line
    assert "ulimit" not in line
    assert pinned(place) == set()


def test_what_others_have_pinned_there_stays(place: Path) -> None:
    (place / "oci-bpf-hook").mkdir(mode=0o700)
    (place / "oci-bpf-hook" / "theirs").mkdir()
    (place / "oci-bpf-hook" / "guard-next").mkdir()
    assert command("guard", "on").returncode == KERNEL_CANNOT
    assert pinned(place) == {"oci-bpf-hook", "oci-bpf-hook/theirs"}


def test_the_older_guard_stays_where_the_new_one_isn_t_loaded(place: Path) -> None:
    pin()
    before = pinned(place)
    assert command("guard", "on").returncode == KERNEL_CANNOT
    assert pinned(place) == before


@pytest.mark.parametrize("action", ["on", "off"])
def test_whoever_made_the_directory_first_has_nothing_removed_by_us(
    place: Path, tmp_path: Path, action: str
) -> None:
    """Where anybody may write to the bpffs, a link there would be followed by root."""
    place.chmod(0o1777)
    file = tmp_path / "precious"
    file.touch()
    script = 'mkdir "$1" && ln -s "$2" "$1/guard-next" && ln -s "$2" "$1/guard-gone"'
    pins = place / "oci-bpf-hook"
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-euc", script)
    subprocess.run([*words, "sh", str(pins), str(tmp_path)], check=True)
    arguments = ("--force",) if action == "off" else ()
    done = command("guard", action, *arguments)
    assert (done.returncode, done.stdout) == (KERNEL_CANNOT, "")
    assert f"{pins} isn't root's own directory" in done.stderr
    assert file.exists()


def test_the_directory_is_no_link_to_another(place: Path, tmp_path: Path) -> None:
    (place / "oci-bpf-hook").symlink_to(tmp_path)
    (tmp_path / "guard").mkdir(mode=0o700)
    assert command("guard", "on").returncode == KERNEL_CANNOT
    assert [path.name for path in tmp_path.iterdir()] == ["guard"]
    _, found = answer("status")
    assert found["why"] == f"{place}/oci-bpf-hook isn't root's own directory"


def test_an_object_that_nobody_has_compiled(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lists, "OBJECT", tmp_path / "guard.bpfel.o")
    done = command("guard", "on")
    assert done.returncode == KERNEL_CANNOT
    assert f"the guard's object {tmp_path}/guard.bpfel.o is missing" in done.stderr
    assert "`make guard` builds it" in done.stderr
    assert pinned(place) == set()
    # Whether one is in force doesn't depend on it.
    assert command("guard", "status").returncode == FOUND


def test_without_libbpf(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci_bpf_hook.guard.lsm.libbpf._SONAME", "libbpf-of-nobody.so.1")
    done = command("guard", "on")
    assert done.returncode == KERNEL_CANNOT
    assert "install libbpf1" in done.stderr
    assert pinned(place) == set()


@pytest.mark.parametrize("action", ["on", "off"])
@pytest.mark.parametrize("who", ["nobody", "root of a user namespace"])
def test_it_is_root_s_on_the_host(action: str, who: str) -> None:
    prefix = {
        "nobody": ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        "root of a user namespace": ("unshare", "--user", "--map-root-user"),
    }[who]
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "oci_bpf_hook", "guard", action],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == NO_BROKER, done.stderr
    assert "run this as root (sudo) in the initial user namespace" in done.stderr


def test_status_where_there_is_none() -> None:
    code, found = answer("status")
    assert code == FOUND
    assert found["why"] == "the guard isn't loaded"
    assert (found["in_force"], found["current"], found["tokens"]) == (False, False, None)
    done = command("guard", "status")
    assert done.returncode == FOUND
    assert done.stdout.splitlines()[0] == "off: the guard isn't loaded"


def test_status_where_it_isn_t_this_one() -> None:
    pin()
    code, found = answer("status")
    assert code == FOUND
    assert (
        found["why"]
        == f"the guard is of another version (0, and this program needs {guard.VERSION})"
    )


def test_off_where_there_is_none(place: Path) -> None:
    assert answer("off") == (DONE, {"dry_run": False, "changed": False, "released": []})
    assert command("guard", "off").stdout == "off: there is no guard\n"
    assert pinned(place) == set()


def test_off_takes_away_what_is_left_of_one_that_was_being_made(place: Path) -> None:
    for name in ("guard-next", "guard-gone"):
        pin(f"{PINS}/{name}")
    code, found = answer("off", "--force")
    assert (code, found["changed"]) == (DONE, True)
    assert pinned(place) == set()


def test_off_lets_go_of_nobody_who_may_be_held(place: Path) -> None:
    """The guard is of another version, and so nothing tells whom it holds."""
    with Scratch() as scratch:
        scratch.hook(io(delegate_cmds="map_create"))
        pin()
        before = pinned(place)
        for arguments in ((), ("--dry-run",)):
            done = command("guard", "off", *arguments)
            assert (done.returncode, done.stdout) == (MOUNT_FAILED, "")
            assert (
                f"pid {scratch.init.pid} may be confined by the guard, and without the guard would "
                in done.stderr
            )
            assert "give --force" in done.stderr
        for dry_run in (True, False):
            code, found = answer("off", "--force", *(("--dry-run",) if dry_run else ()))
            assert (code, found["changed"], found["dry_run"]) == (DONE, True, dry_run)
            # And whoever else has a container on this host.
            assert f"pid {scratch.init.pid}" in found["released"]
            assert pinned(place) == (before if dry_run else set())


def test_a_guard_that_is_renewed_while_it_is_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't missed for the names that lead to the old one at first, and then to the new one."""
    pin()
    (place / "oci-bpf-hook" / "older").mkdir(mode=0o700)
    next_, open_pinned = f"{PINS}/older", syscalls.bpf_obj_get
    process.exchange(next_.encode(), GUARD.encode())
    looked: list[bytes] = []

    def renewed(path: bytes) -> int:
        if not looked:
            process.exchange(next_.encode(), GUARD.encode())
        looked.append(path)
        # The first name is looked for where the older one is.
        return open_pinned(path.replace(b"/guard/", b"/older/") if len(looked) == 1 else path)

    monkeypatch.setattr(syscalls, "bpf_obj_get", renewed)
    with pytest.raises(guard.AbsentError, match="of another version"):
        guard.in_force()
    assert len(looked) > len(guard.LINKS)


def test_nothing_is_marked_while_the_guard_is_taken_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it taken away while something is granted that has the mark already."""
    del place
    pin()
    # What is of version 0 is never in force; that it goes is what shows here.
    there = guard.Guard(os.dup(0), GUARD)
    with there, release.nothing_marked(), pytest.raises(OSError, match="is being removed"):
        there.mark(0)
    with guard.Guard(os.dup(0), GUARD) as there:
        with pytest.raises(OSError, match="of another version"):
            there.mark(0)
        monkeypatch.setattr(release, "_GRANT", 0)
        with pytest.raises(HookError, match="are under way"), release.nothing_marked():
            pass
        with release.nothing_marked(force=True):
            pass
    with release.nothing_marked():
        pass
    load.turn_off()
    with guard.Guard(os.dup(0), GUARD) as there, pytest.raises(FileNotFoundError):
        there.mark(0)


def test_audit_where_there_is_none() -> None:
    done = command("guard", "audit")
    assert done.returncode == KERNEL_CANNOT
    assert "there are no refusals to record: the guard isn't loaded" in done.stderr


def test_the_schema_has_all_that_is_told_of_a_refusal() -> None:
    said = SCHEMA["$defs"]["refusal"]["properties"].keys()
    assert said == {*Refusal.__slots__, "text"}
    assert os.path.dirname(GUARD) == PINS

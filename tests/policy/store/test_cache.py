"""The policy in force, and when its compiled form is believed."""

import os
import subprocess
from contextlib import suppress
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook import paths
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.files import read_all
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.policy.compiled import END, MAGIC, PREAMBLE, Compiled
from oci_bpf_hook.policy.store import cache, source
from oci_bpf_hook.policy.store.cache import in_force
from oci_bpf_hook.policy.store.watch import Watched
from tests.policy.store.test_source import refused
from tests.support.policyplace import DENY, Place
from tests.support.subjects import subject as asker


def test_without_a_file_the_built_in_policy_holds(place: Place) -> None:
    rules = place.policy().rules(asker(host_network=False, host_cgroup=False))
    assert "own-namespaces" in [rule["name"] for rule in rules]
    assert place.cache.exists()
    assert place.policy().enums["delegate_cmds"].values["prog_load"] == 5


def test_another_installation_has_another_built_in_policy(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same version, as a checkout has: what one has compiled isn't the other's."""
    place.policy()
    other = place.run.with_name("builtin.json")
    text = Path(paths.BUILTIN).read_text()
    other.write_text(text.replace('"own-namespaces"', '"others"'))
    monkeypatch.setattr(paths, "BUILTIN", str(other))
    names = [rule["name"] for rule in place.policy().rules(asker())]
    assert "others" in names
    assert "own-namespaces" not in names


def test_a_change_is_seen(place: Place) -> None:
    for name in ("one", "two", "three"):
        place.write(DENY.format(name=name))
        assert place.name() == name
        assert place.name() == name
    place.etc.unlink()
    assert "own-namespaces" in [rule["name"] for rule in place.policy().rules(asker())]


def test_the_compiled_form_is_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    monkeypatch.setattr(source, "compile_policy", None)
    assert place.name() == "one"


def test_a_file_of_the_same_size_and_time_is_another(place: Place) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    status = place.etc.stat()
    place.etc.write_text(DENY.format(name="two"))
    os.utime(place.etc, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert place.etc.stat().st_size == status.st_size
    assert place.name() == "two"


def test_what_has_just_changed_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SETTLED", 3600 * 10**9)
    place.write(DENY.format(name="one"))
    assert place.name() == "one"
    assert not place.cache.exists()


def test_a_file_of_next_year_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which an archive, or another host's clock, made the mtime."""
    place.write(DENY.format(name="one"), age=-366 * 86400)
    assert place.name() == "one"
    assert place.cache.exists()
    watched = Watched(etc=str(place.etc), run=str(place.run))
    watched.get()
    monkeypatch.setattr("oci_bpf_hook.policy.store.watch.in_force", None)
    assert isinstance(watched.get(), Compiled)


@pytest.mark.parametrize("file", ["/etc/passwd", "/etc/group"])
def test_an_id_that_is_somebody_else_s_by_now(place: Place, file: str) -> None:
    """The compiled form has ids; the name stands for another one later."""
    before = Path(file).read_text()
    key = {"/etc/passwd": "user", "/etc/group": "group"}[file]
    place.write(f"version: 1\nrules:\n- name: a\n  match: {{{key}: obh-test}}\n  deny: x\n")
    try:
        for number in (4711, 4712):
            line = f"obh-test:x:{number}:"
            new = Path(f"{file}.new")
            new.write_text(f"{before}{line}{'4711::/:/bin/sh' if key == 'user' else ''}\n")
            new.rename(file)
            for _ in range(2):
                (rule,) = place.policy().rules(asker(user=number, group=(number,)))
                assert rule["match"] == {key: [number]}
    finally:
        Path(file).write_text(before)


def test_a_header_that_is_another_by_now(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no BTF, the names are the header's."""
    monkeypatch.setattr(kernel.enums, "__kwdefaults__", {"header": None, "vmlinux": "/nowhere"})
    text = Path("/usr/include/linux/bpf.h").read_text()
    header = place.run.with_name("bpf.h")
    for name in ("BPF_MAP_CREATE", "BPF_MAP_MAKE"):
        header.write_text(text.replace("BPF_MAP_CREATE", name))
        compiled = in_force(header=str(header), etc=str(place.etc), run=str(place.run))
        assert name.lower()[4:] in compiled.enums["delegate_cmds"].values


def test_who_watches_knows_when_the_policy_itself_was_changed(place: Place) -> None:
    place.write(DENY.format(name="one"))
    status = place.etc.stat()
    watched = Watched(etc=str(place.etc), run=str(place.run))
    assert watched._now()[-2:] == [status.st_mtime_ns, status.st_ctime_ns]


@pytest.mark.parametrize("what", ["version", "release", "build", "header"])
def test_a_compiled_form_of_somewhere_else(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It has this program's meaning, and this kernel's names."""
    place.write(DENY.format(name="one"))
    place.policy()
    header = None
    if what == "version":
        monkeypatch.setattr(cache, "__version__", "0")
    elif what == "header":
        header = "/usr/include/linux/bpf.h"
    else:
        number = {"release": 2, "build": 3}[what]
        other = list(os.uname())
        other[number] = "other"
        monkeypatch.setattr("posix.uname", lambda: os.uname_result(other))
    compiled: list[object] = []
    compile_policy = source.compile_policy

    def counted(*arguments: Any) -> bytes:
        compiled.append(arguments)
        return compile_policy(*arguments)

    monkeypatch.setattr(source, "compile_policy", counted)
    for _ in range(2):
        in_force(header=header, etc=str(place.etc), run=str(place.run))
    assert len(compiled) == 1


def test_whose_the_compiled_form_is(place: Place) -> None:
    """The file's alone; in the directory is the broker's socket, for everybody."""
    place.write(DENY.format(name="one"))
    before = os.umask(0o077)
    try:
        place.policy()
    finally:
        os.umask(before)
    assert place.cache.stat().st_mode & 0o7777 == 0o600
    assert place.run.stat().st_mode & 0o7777 == 0o755


def test_a_run_directory_that_is_full(place: Place) -> None:
    """There are policies that don't fit, and the next one does."""
    place.write("version: 1\nrules:\n" + "".join(map(BY_NAMESPACE.format, range(400))))
    place.run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"mode=755,size={8 * PAGESIZE}", "none", str(place.run)]
    subprocess.run(mount, check=True)
    try:
        assert len(list(place.policy().rules(asker(namespace="ns-7")))) == 1
        assert {path.name for path in place.run.iterdir()} <= {".lock"}
        place.write(DENY.format(name="one"))
        assert place.name() == "one"
        assert place.cache.exists()
    finally:
        subprocess.run(["umount", place.run], check=True)


def test_no_fd_is_left(place: Place) -> None:
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        place.write(DENY.format(name=f"n{number}"))
        for _ in range(2):
            in_force(etc=str(place.etc), run=str(place.run), in_memory=True)
    place.write("version: 2\n")
    refused(place)
    os.mkdir(place.etc.with_name("directory"))
    for wrong in ("directory", "directory/policy.yaml", "policy.yaml/policy.yaml"):
        with suppress(HookError):
            in_force(etc=f"{place.etc.parent}/{wrong}", run=str(place.run), in_memory=True)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("more", [b"\n# more\n", b""])
def test_a_file_that_is_written_while_it_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    """What was there before is not what is there now, whether or not it is as long."""
    place.write(DENY.format(name="one"))
    reads: list[bytes] = []

    def slow(fd: int, limit: int | None = None) -> bytes:
        text = read_all(fd, limit)
        reads.append(text)
        if len(reads) == 1:
            place.etc.write_bytes(DENY.format(name="two").encode() + more)
        return text

    monkeypatch.setattr(source, "read_all", slow)
    assert place.name() == "two"
    assert len(reads) == 2


def test_a_file_without_end(place: Place) -> None:
    place.write("#" * (16 << 20) + "\n" + DENY.format(name="one"))
    assert f"{place.etc} is larger than" in refused(place)


HEADERS = [
    b"[]",
    b"null",
    b"{}",
    b'{"identity":[],"names":[]}',
    b'{"identity":[],"names":{"delegate_cmds":1}}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_compiled_form_of_something_else(place: Place, header: bytes) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    compiled = PREAMBLE.pack(MAGIC, len(header), 0) + header
    place.cache.write_bytes(compiled + END.pack(len(compiled)))
    assert place.name() == "one"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 40, 200])
def test_a_damaged_compiled_form_is_made_anew(place: Place, size: int) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    place.cache.write_bytes(place.cache.read_bytes()[:size])
    assert place.name() == "one"
    assert len(place.cache.read_bytes()) > size


BY_NAMESPACE = "- {{name: r{0}, match: {{namespace: ns-{0}}}, deny: because}}\n"


@pytest.mark.parametrize("less", [1, 8, 100, 1000])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_compiled_form_without_its_end(place: Place, less: int, *, in_memory: bool) -> None:
    """Rules that are found through their namespace are behind what is read at once."""
    place.write("version: 1\nrules:\n" + "".join(map(BY_NAMESPACE.format, range(50))))
    place.policy()
    whole = place.cache.read_bytes()
    place.cache.write_bytes(whole[:-less])
    policy = in_force(etc=str(place.etc), run=str(place.run), in_memory=in_memory)
    for number in range(50):
        rules = policy.rules(asker(namespace=f"ns-{number}"))
        assert f"r{number}" in [rule["name"] for rule in rules]
    assert place.cache.read_bytes() == whole


def test_a_compiled_form_that_others_can_write_is_not_believed(place: Place) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    lie = place.cache.read_bytes().replace(b'"deny":"because"', b'"deny":null')
    assert lie != place.cache.read_bytes()
    for mode, owner in ((0o666, 0), (0o600, 1000)):
        place.cache.unlink(missing_ok=True)
        place.cache.write_bytes(lie)
        place.cache.chmod(mode)
        os.chown(place.cache, owner, -1)
        (rule,) = place.policy().rules(asker())
        assert rule["deny"] == "because"


def test_a_compiled_form_behind_a_link_is_not_believed(place: Place, tmp_path: Path) -> None:
    place.write(DENY.format(name="one"))
    place.policy()
    place.cache.rename(place.run / "elsewhere")
    place.cache.symlink_to(place.run / "elsewhere")
    assert place.name() == "one"
    assert not place.cache.is_symlink()

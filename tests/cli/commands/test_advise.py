"""`oci-bpf-hook advise`, as people call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import BAD_OBJECT, USAGE
from oci_bpf_hook.formats.advised import FORMS
from oci_bpf_hook.resources import schema
from tests.support.bpf import compiled
from tests.support.command import Done
from tests.support.command import command as run
from tests.support.places import ROOT

# An interpreter without what pip or Debian has installed.
_WITHOUT = """
import sys
sys.path.insert(0, sys.argv[1])
from oci_bpf_hook.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def command(*arguments: str | Path) -> Done:
    done = run("advise", *arguments)
    assert "Traceback" not in done.stderr
    return done


def as_json(*arguments: str | Path) -> dict[str, list[str]]:
    done = command("--format=json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, list[str]] = json.loads(done.stdout)
    jsonschema.validate(found, schema("advise"))
    return found


def test_standard_input() -> None:
    done = run("advise", "-", stdin=compiled("xdp_redirect"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\ndelegate_progs: socket_filter, xdp" in f"\n{done.stdout}"
    done = run("advise", "-", stdin="text")
    assert done.returncode == BAD_OBJECT
    assert done.stderr.startswith("oci-bpf-hook: standard input: ")


@pytest.fixture
def xdp(tmp_path: Path) -> Path:
    path = tmp_path / "xdp_redirect.bpf.o"
    path.write_bytes(compiled("xdp_redirect"))
    return path


def test_json(xdp: Path) -> None:
    found = as_json(xdp)
    assert found["delegate_attachs"] == ["cgroup_inet_ingress", "xdp_devmap", "xdp_cpumap"]
    assert found["capabilities"] == ["net_admin", "bpf"]
    assert json.loads(command("--json", xdp).stdout) == found


@pytest.mark.parametrize("form", FORMS)
def test_forms(xdp: Path, form: str) -> None:
    done = command("--format", form, xdp)
    assert done.returncode == 0
    assert "map_create" in done.stdout or "MapCreate" in done.stdout
    # What is to be pasted has no place for what to beware of, which is said all the same.
    said = "host-network: xdp: a container with the host's network attaches"
    if form in ("text", "json"):
        assert done.stderr == ""
        assert "host-network" in done.stdout
    else:
        assert f"beware: {xdp}: {said}" in done.stderr
        assert "host-network" not in done.stdout


def test_several(xdp: Path) -> None:
    done = command(xdp, "/usr/sbin/execsnoop")
    assert f"{xdp} alone" in done.stdout
    assert "/usr/sbin/execsnoop@0x" in done.stdout


def test_options(xdp: Path) -> None:
    assert "cgroup_sock" in as_json("--exact", xdp)["delegate_progs"]
    assert "socket_filter" in as_json("--libbpf=1.4", "--only=at_cpu", xdp)["delegate_progs"]
    assert as_json("--only", "at_cpu", xdp) == as_json(
        *("--skip", "to_device", "--skip", "to_all", "--skip", "to_cpu"),
        *("--skip", "to_socket", "--skip", "at_device", xdp),
    )
    assert as_json("--loader=cilium", xdp)["delegate_progs"] == ["socket_filter", "xdp"]
    assert "xdp" in as_json("--loader=aya", xdp)["delegate_attachs"]
    assert as_json("--btf=/sys/kernel/btf/vmlinux", xdp) == as_json(xdp)


def test_with(xdp: Path, tmp_path: Path) -> None:
    other = tmp_path / "recording.json"
    other.write_text(json.dumps(as_json("/usr/sbin/execsnoop")))
    together = as_json("--with", other, xdp)
    assert together["delegate_progs"] == as_json(xdp, "/usr/sbin/execsnoop")["delegate_progs"]


def test_name(xdp: Path) -> None:
    assert "  xdp-redirect:" in command("--format=policy", xdp).stdout
    assert "  my-profile:" in command("--format=policy", "--name=My Profile", xdp).stdout


def test_struct_ops_of_another_kernel(tmp_path: Path) -> None:
    path = tmp_path / "ops.o"
    path.write_bytes(compiled("dummy_ops"))
    small = tmp_path / "small.btf"
    small.write_bytes(b"\x9f\xeb\x01\x00" + bytes(20))
    done = command("--btf", small, path)
    assert done.returncode == USAGE
    assert f"--btf {small}: " in done.stderr


def test_any_host(xdp: Path) -> None:
    """Without privilege, and without anything of this kernel's."""
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-m", "oci_bpf_hook", "advise", str(xdp)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == command(xdp).stdout


def test_without_pyelftools(xdp: Path) -> None:
    done = subprocess.run(
        [*("/usr/bin/python3", "-ISE", "-c"), _WITHOUT, str(ROOT), "advise", str(xdp)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "advise needs python3-pyelftools" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/passwd", "there is no BPF object in it"),
        ("/bin/true", "there is no BPF object in it"),
        ("/does/not/exist", "No such file or directory"),
        ("/dev/zero", "it isn't a regular file"),
        ("/tmp", "Is a directory"),
    ],
)
def test_what_is_no_object(path: str, words: str) -> None:
    done = command(path)
    assert done.returncode == BAD_OBJECT
    assert done.stderr == f"oci-bpf-hook: {path}: {words}\n"


def test_fifo_and_gigabytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(4 << 30)
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_bytes(compiled("pinned")[:-100])
    (tmp_path / "untyped").write_bytes(compiled("pinned", "-g0"))
    names = ("fifo", "large", "empty", "short", "untyped")
    done = command(*(tmp_path / name for name in names))
    assert done.returncode == BAD_OBJECT
    # All at once.
    for name, words in (
        ("fifo", "isn't a regular file"),
        ("large", "larger than 512 MiB"),
        ("empty", "no BPF object"),
        ("short", "cut short"),
        ("untyped", "compile with -g"),
    ):
        assert f"{tmp_path / name}: " in done.stderr
        assert words in done.stderr


def test_objects_without_an_end(tmp_path: Path) -> None:
    """The smallest object has 128 bytes; a file may have millions of them."""
    smallest = compiled("variables")[:64] + bytes(64)
    smallest = smallest[:40] + (64).to_bytes(8, "little") + smallest[48:60]
    smallest += (1).to_bytes(2, "little") + bytes(2 + 64)
    path = tmp_path / "many"
    path.write_bytes(b"x" + smallest * 4097)
    done = command(path)
    assert done.returncode == BAD_OBJECT
    assert "more than 4096 BPF objects" in done.stderr
    path.write_bytes(b"x" + smallest * 3)
    assert command(path).stdout.count("there is no program and no map") == 3


def test_a_file_with_an_odd_name(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\x1b[1m\n.o"
    with open(path, "wb") as file:
        file.write(compiled("pinned"))
    done = command(os.fsdecode(path))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "at_cpus"), 'no program "at_cpus"; did you mean "at_cpu"?'),
        (("--skip", "zzz"), 'no program "zzz"'),
        (("--with", "/does/not/exist"), "--with /does/not/exist: No such file"),
        (("--with", "/etc/passwd"), "--with /etc/passwd: this isn't JSON: "),
        (("--btf", "/etc/passwd"), "--btf /etc/passwd: "),
        (("--btf", "/does/not/exist"), "--btf /does/not/exist: No such file"),
        (("--btf", "/dev/zero"), "--btf /dev/zero: it is a device"),
        (("--btf", sys.executable), "it is an ELF file, and only its section .BTF"),
        (("--libbpf", "1.0"), "invalid choice"),
        (("--loader", "bcc"), "invalid choice"),
    ],
)
def test_wrong_arguments(xdp: Path, arguments: tuple[str, ...], words: str) -> None:
    done = command(*arguments, xdp)
    assert done.returncode == USAGE
    assert words in done.stderr

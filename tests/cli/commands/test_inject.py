"""`oci-bpf-hook inject`: a bundle that crun and runc run with a token, and the bundle it was."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_STATE, DONE, NO_USER_NAMESPACE, UNKNOWN_NAME, USAGE
from tests.support.bundle import Bundle
from tests.support.command import Done, command
from tests.support.engines import RUNTIMES, Runtime, build_probe
from tests.support.policy import UNCONFINED, in_force
from tests.support.scratch import LAUNCHER

XDP = "io.bpffs.profile=xdp"
COMMAND = ["sh", "-c", "cat /proc/mounts; probe map /sys/fs/bpf 1; probe prog /sys/fs/bpf 6 37"]
# What Debian 12's podman makes of its profile for a container without CAP_SYS_ADMIN.
REFUSING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["bpf", "acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe") / "probe")


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


@pytest.fixture
def bundle(probe: Path) -> Iterator[Bundle]:
    with Bundle(probe=probe, command=COMMAND, capabilities=()) as made:
        made.config["linux"]["seccomp"] = REFUSING
        write(made)
        yield made


def write(bundle: Bundle) -> None:
    (bundle.directory / "config.json").write_text(json.dumps(bundle.config, indent="\t") + "\n")


def inject(bundle: Bundle, *arguments: str) -> Done:
    done = command("inject", bundle.directory, "--hook", LAUNCHER, *arguments)
    bundle.config = json.loads((bundle.directory / "config.json").read_text())
    return done


def results(bundle: Bundle, runtime: Runtime) -> list[str]:
    done = bundle.run(runtime)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if '"token"' in line]
    # Where there is no token there is no result.
    return [line["result"] or line["token"] for line in found]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_runs(bundle: Bundle, runtime: Runtime) -> None:
    path = bundle.directory / "config.json"
    before = path.read_text()
    arguments = ("--annotation", XDP, "--capabilities", "--seccomp")
    assert inject(bundle, *arguments).stdout == f"write {path}\n"
    assert results(bundle, runtime) == ["ok", "ok"]
    # Each of these was needed.
    write(bundle)
    inject(bundle, "--annotation", XDP, "--capabilities")
    assert results(bundle, runtime) == ["EPERM", "EPERM"]
    inject(bundle, "--annotation", XDP, "--seccomp")
    assert results(bundle, runtime) == ["EPERM", "EPERM"]
    write(bundle)
    assert inject(bundle, "--undo").returncode == DONE
    write(bundle)
    assert path.read_text() == before
    assert " bpf " not in bundle.run(runtime).stdout


def test_twice_is_once_and_undone_is_untouched(bundle: Bundle) -> None:
    path = bundle.directory / "config.json"
    path.chmod(0o640)
    os.chown(path, 12, 34)
    before = path.read_bytes()
    arguments = ("--annotation", XDP, "--capabilities", "--seccomp")
    assert inject(bundle, *arguments).stdout == f"write {path}\n"
    once, status = path.read_bytes(), path.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 12, 34)
    assert inject(bundle, *arguments) == Done(DONE, "", "")
    assert path.read_bytes() == once
    assert path.stat().st_ino == status.st_ino
    # Another request takes the place of the first.
    inject(bundle, "--annotation", "io.bpffs.profile=tc")
    assert bundle.config["annotations"]["io.bpffs.profile"] == "tc"
    assert len(bundle.config["hooks"]["createRuntime"]) == 1
    assert inject(bundle, "--undo").stdout == f"write {path}\n"
    assert path.read_bytes() == before
    assert inject(bundle, "--undo") == Done(DONE, "", "")
    assert {item.name for item in bundle.directory.iterdir()} == {"config.json", "rootfs"}


def test_what_runc_spec_makes(tmp_path: Path) -> None:
    subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    path.write_text(json.dumps(config, indent="\t"))
    before = path.read_text()
    assert command("inject", tmp_path, "--annotation", XDP).returncode == DONE
    assert path.read_text() != before
    command("inject", tmp_path, "--undo")
    assert path.read_text() == before


def test_another_path_is_told_to_libbpf(bundle: Bundle) -> None:
    inject(bundle, "--annotation", XDP, "--annotation", "io.bpffs.path=/run/bpf")
    assert "LIBBPF_BPF_TOKEN_PATH=/run/bpf" in bundle.config["process"]["env"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), USAGE, "nothing is asked for"),
        (("--annotation", "io.bpffs.profile=xpd"), UNKNOWN_NAME, 'did you mean "xdp"?'),
        (("--annotation", "io.bpffs.profil=xdp"), 10, "isn't a known key"),
        (("--annotation", "io.bpffs.delegate_cmds=x"), UNKNOWN_NAME, '"x"'),
        (("--annotation", "x"), USAGE, "KEY=VALUE"),
        (("--annotation", XDP, "--hook", "x"), USAGE, "isn't an absolute path"),
    ],
)
def test_what_is_refused_is_not_written(
    bundle: Bundle, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = (bundle.directory / "config.json").read_bytes()
    done = inject(bundle, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert (bundle.directory / "config.json").read_bytes() == before


def test_no_user_namespace(bundle: Bundle) -> None:
    """Where CAP_BPF would be the host's."""
    spaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "user"]
    write(bundle)
    done = inject(bundle, "--annotation", XDP, "--capabilities")
    assert (done.returncode, done.stdout) == (NO_USER_NAMESPACE, "")
    assert "CAP_BPF is the host's" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"linux": 1}',
        '{"linux": {"namespaces": [1]}}',
        '{"annotations": {"a": 1}}',
        "[" * 9999,
    ],
    ids=lambda text: text[:9],
)
def test_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    done = command("inject", tmp_path, "--annotation", XDP)
    assert done.returncode in (BAD_STATE, NO_USER_NAMESPACE)
    assert done.stderr.startswith("oci-bpf-hook: ")
    assert (tmp_path / "config.json").read_text() == text


def test_no_bundle(tmp_path: Path) -> None:
    assert command("inject", tmp_path, "--undo").returncode == USAGE

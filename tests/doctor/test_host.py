"""doctor on a host: each situation arranged for real, in mounts of its own, and its cause named."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from oci_bpf_hook.broker.client import connect
from oci_bpf_hook.doctor.directories import ETC, SHARED
from oci_bpf_hook.paths import POLICY
from oci_bpf_hook.paths import SOCKET as BROKER
from tests.support.places import ROOT
from tests.support.situation import command, not_well, with_filter
from tests.support.well import HOOK_JSON, NO_RULE, Host, causes

UNIT = "/etc/systemd/system/oci-bpf-hook-broker.socket"


def test_nothing_is_wrong(host: Host) -> None:
    found = host.doctor()
    assert {one["state"] for one in found} == {"ok"}, not_well(found)
    assert found[-1]["what"] == "selftest"
    engines = [one["why"] for one in found if one["what"] == "engines"]
    assert [text.split(" ")[0] for text in engines] == ["podman", "crun", "runc"]
    assert "wrong bundle" in engines[1]
    # Nothing is left of the scratch container.
    assert " bpf " not in Path("/proc/self/mounts").read_text().replace("/sys/fs/bpf bpf ", "")


def test_a_kernel_without_btf(host: Host) -> None:
    found = host.doctor(first="mount -t tmpfs none /sys/kernel/btf")
    assert "btf" in causes(found)
    assert not_well(found)["btf"]["why"].startswith("this kernel has no BTF (")
    assert "CONFIG_DEBUG_INFO_BTF=y" in not_well(found)["btf"]["fix"]


def test_a_kernel_whose_btf_can_t_be_read(host: Host) -> None:
    """As that of a newer kernel may be: there is BTF, and another kernel is no remedy."""
    host.files["/sys/kernel/btf/vmlinux"] = "no BTF\n"
    found = host.doctor()
    assert causes(found) == {"btf"}
    assert "this version can't read the kernel's names in it (" in not_well(found)["btf"]["why"]
    assert "boot" not in not_well(found)["btf"]["fix"]


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ("echo 'rules: [' > FILE", "oci-bpf-hook policy check FILE"),
        ("chmod 666 FILE", "chmod go-w FILE"),
        ("chown 1000 FILE", "chown root: FILE"),
        # What is to be changed is the directory then.
        ("chmod 777 $(dirname FILE)", "chmod go-w /etc/oci-bpf-hook"),
        ("rm FILE && mkdir FILE", "oci-bpf-hook policy check FILE"),
        ("mv FILE FILE.real && ln -s FILE.real FILE", "oci-bpf-hook policy check FILE"),
    ],
)
def test_a_policy_that_can_t_be_read(host: Host, change: str, fix: str) -> None:
    lines = (
        "mount -t tmpfs -o mode=755 none /etc/oci-bpf-hook",
        f"printf '{NO_RULE}' > {POLICY}",
        change.replace("FILE", POLICY),
    )
    found = host.doctor(first="\n".join(lines))
    assert causes(found) == {"policy"}
    assert not_well(found)["policy"]["fix"] == fix.replace("FILE", POLICY)


@pytest.mark.parametrize("line", ["mitigations=off", "quiet mitigations=off lsm=bpf"])
def test_a_kernel_that_mitigates_nothing(host: Host, line: str) -> None:
    host.files["/proc/cmdline"] = f"{line}\n"
    found = host.doctor()
    assert causes(found) == {"mitigations"}
    assert not_well(found)["mitigations"]["state"] == "warning"


@pytest.mark.parametrize("change", ["missing", "not-executable", "writable", "broken"])
def test_the_hook_s_program(host: Host, change: str) -> None:
    if change == "missing":
        host.launcher.unlink()
    elif change == "not-executable":
        host.launcher.chmod(0o644)
    elif change == "writable":
        host.launcher.chmod(0o777)
    else:
        shutil.rmtree(host.launcher.parent / "oci_bpf_hook")
    assert causes(host.doctor()) == {"hook-program"}


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\xff", '{"hook": {"path": 1}', '{"hook": {}}'])
def test_a_broken_json(host: Host, text: str) -> None:
    (host.json.parent / "of-somebody.json").write_text(text, encoding="latin-1")
    found = host.doctor()
    assert causes(found) == {"hooks-json"}
    # podman itself has this to say.
    (wrong,) = not_well(found).values()
    assert "starts no container" in wrong["why"]


def test_our_own_json_broken(host: Host) -> None:
    host.json.write_text("{")
    assert causes(host.doctor()) == {"hooks-json"}


def test_our_own_json_without_an_environment(host: Host) -> None:
    del host.config["hook"]["env"]
    host.write()
    assert causes(host.doctor()) == {"hooks-json"}


def test_a_directory_that_podman_doesn_t_read(host: Host) -> None:
    host.json.unlink()
    host.files[f"{ETC}/{HOOK_JSON.name}"] = json.dumps(host.config)
    found = host.doctor()
    assert causes(found) == {"hooks-dir"}
    assert SHARED in not_well(found)["hooks-dir"]["why"]


def test_a_directory_of_the_administrator_s(host: Host, tmp_path: Path) -> None:
    (tmp_path / HOOK_JSON.name).write_text(json.dumps(host.config))
    conf = tmp_path / "containers.conf"
    conf.write_text(f'[engine]\nhooks_dir = ["{tmp_path}"]\n')
    host.json.unlink()
    assert causes(host.doctor()) == {"hook-missing"}
    assert causes(host.doctor(env={"CONTAINERS_CONF": str(conf)})) == set()
    conf.write_text('[engine]\nhooks_dir = ["/nowhere"]\n')
    host.write()
    assert causes(host.doctor(env={"CONTAINERS_CONF": str(conf)})) == {"hooks-dir"}
    host.files["/etc/containers/containers.conf"] = f'[engine]\nhooks_dir = ["{tmp_path}"]\n'
    assert causes(host.doctor()) == set()


@pytest.mark.parametrize("change", ["file", "directory", "above"])
def test_a_directory_of_somebody_else_s(host: Host, tmp_path: Path, change: str) -> None:
    """CONTAINERS_CONF may be from a user's environment, and lead to what that user has written."""
    above = host.containers / "theirs"
    directory = above / "hooks.d"
    directory.mkdir(parents=True)
    path = directory / HOOK_JSON.name
    ran = tmp_path / "ran"
    host.config["hook"].update(path="/bin/sh", args=["sh", "-c", f"touch {ran}"])
    path.write_text(json.dumps(host.config))
    os.chown({"file": path, "directory": directory, "above": above}[change], 61996, 61996)
    conf = tmp_path / "containers.conf"
    conf.write_text(f'[engine]\nhooks_dir = ["{directory}"]\n')
    found = host.doctor(env={"CONTAINERS_CONF": str(conf)})
    assert causes(found) == {"hooks-json"}
    assert "others than root can change" in not_well(found)["hooks-json"]["why"]
    assert not ran.exists()


def test_a_path_of_somebody_else_s(host: Host, tmp_path: Path) -> None:
    """It is from a user's environment, too, where sudo(8) was told to leave that alone."""
    ran = tmp_path / "ran"
    for name in ("podman", "crun", "runc", "youki"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (tmp_path / name).chmod(0o755)
    found = host.doctor(env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    engines = [one["why"] for one in found if one["what"] == "engines"]
    assert [text.split(" ")[0] for text in engines] == ["podman", "crun", "runc"]
    assert not ran.exists()


def test_the_stage_of_podman_s_own(host: Host, tmp_path: Path) -> None:
    """In a directory of its own it is well; beside the hook it breaks those that don't know it."""
    precreate = host.config | {"stages": ["precreate"]}
    path = tmp_path / "oci-bpf-hook-precreate.json"
    path.write_text(json.dumps(precreate))
    conf = tmp_path / "containers.conf"
    conf.write_text(f'[engine]\nhooks_dir = ["{SHARED}", "{tmp_path}"]\n')
    found = host.doctor(env={"CONTAINERS_CONF": str(conf)})
    assert causes(found) == set()
    # That it is there doesn't make it the hook.
    conf.write_text(f'[engine]\nhooks_dir = ["{tmp_path}"]\n')
    assert causes(host.doctor(env={"CONTAINERS_CONF": str(conf)})) == {"hooks-dir"}
    (host.json.parent / path.name).write_text(path.read_text())
    found = host.doctor()
    assert causes(found) == {"hooks-json"}
    assert "fail on the stage precreate" in not_well(found)["hooks-json"]["why"]


def test_no_hook(host: Host) -> None:
    host.json.unlink()
    assert causes(host.doctor()) == {"hook-missing"}


@pytest.mark.parametrize("name", ["/etc/subuid", "/etc/subgid"])
def test_no_subordinate_ids(host: Host, name: str) -> None:
    host.files[name] = "somebody:100000:65536\n"
    found = host.doctor()
    assert causes(found) == {"subuid"}
    assert not_well(found)["subuid"]["why"].startswith(f"{name} has no range for containers")


@pytest.mark.parametrize("installed", [True, False])
def test_a_broker_that_nobody_needs(host: Host, installed: bool) -> None:
    """Root's own engines do without, also where root has used podman."""
    host.files |= {UNIT: "[Socket]\n"} if installed else {}
    found = host.doctor(first=ROOTS)
    assert causes(found) == set()
    (broker,) = (one["why"] for one in found if one["what"] == "broker")
    state = f"none listens on {BROKER}" if installed else "none is installed"
    assert broker == f"{state}; rootless engines need it, rootful ones don't"


ROOTS = "mount -t tmpfs none /root && mkdir -p /root/.config/containers/oci/hooks.d"


@pytest.mark.parametrize(
    "place",
    [
        ".local/share/containers/storage/overlay",
        ".config/containers/containers.conf",
        ".config/containers/oci/hooks.d/x.json",
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_a_broker_that_a_user_needs(host: Host, place: str, installed: bool) -> None:
    home = host.containers / "home"
    (home / place).parent.mkdir(parents=True)
    (home / place).write_text("")
    host.files["/etc/passwd"] += f"somebody:x:61995:61995::{home}:/bin/sh\n"
    host.files |= {UNIT: "[Socket]\n"} if installed else {}
    found = host.doctor()
    assert causes(found) == {"broker"}
    assert f"; somebody has a rootless one, whose files are in {home}/." in _broker(found)["why"]
    assert "enable --now" in _broker(found)["fix"]


def test_a_broker_for_a_podman_that_runs(host: Host) -> None:
    host.files["/etc/passwd"] += "somebody:x:61995:61995::/:/bin/sh\n"
    run = "mount -t tmpfs none /run && mkdir -p /run/user/61995/libpod"
    found = host.doctor(first=run)
    assert causes(found) == {"broker"}
    assert "/run/user/61995/libpod" in _broker(found)["why"]


def test_a_broker_for_a_hook_without_privilege(host: Host) -> None:
    host.files[UNIT] = "[Socket]\n"
    config = host.config | {"stages": ["createContainer"]}
    (host.json.parent / "oci-bpf-hook-createContainer.json").write_text(json.dumps(config))
    found = host.doctor()
    assert causes(found) == {"broker"}
    assert "runs the hook at createContainer" in _broker(found)["why"]
    # Somebody else's hook at that stage doesn't ask our broker.
    config["hook"] = host.config["hook"] | {"path": "/bin/true"}
    (host.json.parent / "oci-bpf-hook-createContainer.json").write_text(json.dumps(config))
    assert "broker" not in not_well(host.doctor())


def _broker(found: list[dict[str, str]]) -> Mapping[str, str]:
    return not_well(found)["broker"]


def test_a_broker_that_nobody_is_behind(host: Host) -> None:
    code = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"os.makedirs({os.path.dirname(BROKER)!r}, exist_ok=True)\n"
        f"sock.bind({BROKER!r})\n"
    )
    run = f'mount -t tmpfs none /run\n{shlex.quote(sys.executable)} -c "$CODE"'
    found = host.doctor(first=run, env={"CODE": code})
    assert causes(found) == {"broker"}
    assert "nobody listens" in not_well(found)["broker"]["why"]


def test_a_broker_that_is_too_busy(host: Host) -> None:
    """Its queue is full, which doesn't mean that it should be enabled."""
    path = Path(BROKER)
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(BROKER)
        sock.listen(0)
        try:
            with closing(connect(BROKER, 30)):
                found = host.doctor()
        finally:
            path.unlink()
    assert causes(found) == {"broker"}
    assert "too busy" in _broker(found)["why"]
    assert _broker(found)["fix"] == "journalctl -u oci-bpf-hook-broker"


def test_a_broker_that_listens(host: Host) -> None:
    path = Path(BROKER)
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(BROKER)
        sock.listen()
        try:
            found = host.doctor()
        finally:
            path.unlink()
    assert causes(found) == set()
    assert f"it listens on {BROKER}" in [one["why"] for one in found]


def test_no_user_namespaces(host: Host) -> None:
    host.files["/proc/sys/user/max_user_namespaces"] = "0\n"
    assert causes(host.doctor()) == {"user-namespaces"}


def test_unprivileged_bpf(host: Host) -> None:
    host.files["/proc/sys/kernel/unprivileged_bpf_disabled"] = "0\n"
    assert causes(host.doctor()) == {"unprivileged-bpf"}


def test_an_engine_s_seccomp_profile(host: Host) -> None:
    profile = json.loads((host.containers / "seccomp.json").read_text())
    for rule in profile["syscalls"]:
        if "bpf" in rule["names"] and rule.get("includes"):
            rule["includes"] = {"caps": ["CAP_SYS_ADMIN"]}
    (host.containers / "seccomp.json").write_text(json.dumps(profile))
    found = host.doctor()
    assert causes(found) == {"engine-seccomp"}
    assert (
        not_well(found)["engine-seccomp"]["fix"]
        == "oci-bpf-hook seccomp --output /etc/containers/seccomp.json"
    )
    fixed = command("seccomp", "--base", str(host.containers / "seccomp.json")).stdout
    (host.containers / "seccomp.json").write_text(fixed)
    assert causes(host.doctor()) == set()
    (host.containers / "seccomp.json").write_text("[]")
    found = host.doctor()
    assert set(not_well(found)) == {"engine-seccomp"}
    assert "isn't a seccomp profile" in not_well(found)["engine-seccomp"]["why"]


def test_without_cap_sys_admin(host: Host) -> None:
    found = host.doctor("setpriv", "--bounding-set=-sys_admin")
    assert causes(found) == {"selftest"}
    assert "takes CAP_SYS_ADMIN" in not_well(found)["selftest"]["why"]


def test_as_another_user(host: Host) -> None:
    host.files |= dict.fromkeys(("/etc/subuid", "/etc/subgid"), "nobody:100000:65536\n")
    found = host.doctor(user=65534)
    # Rootless engines need the broker, and so a user does.
    assert causes(found) == {"broker", "selftest"}
    assert not_well(found)["selftest"]["fix"] == "sudo oci-bpf-hook doctor"
    assert not_well(found)["broker"]["fix"].startswith("sudo systemctl enable --now")


def test_the_selftest_finds_what_keeps_bpf_away(host: Host) -> None:
    found = host.doctor(*with_filter())
    assert set(not_well(found)) == {"selftest"}
    assert "BPF_TOKEN_CREATE: " in not_well(found)["selftest"]["why"]


def test_for_people() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oci_bpf_hook", "doctor", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("the host\n")
    assert "ok  " not in done.stdout
    assert "problem  hook-missing: " in done.stdout
    assert "           fix: oci-bpf-hook install\n" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("problems, 1 warning")

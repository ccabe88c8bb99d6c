"""doctor on a host: each situation arranged for real, in mounts of its own, and its cause named."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from oci_bpf_hook.doctor.engines import ETC, SHARED
from oci_bpf_hook.paths import POLICY
from oci_bpf_hook.paths import SOCKET as BROKER
from tests.support.engines import make_work_directory, remove_work_directory
from tests.support.places import ROOT
from tests.support.podman import seccomp_profile
from tests.support.scratch import LAUNCHER, install
from tests.support.situation import command, findings, not_well, with_filter

HOOK_JSON = LAUNCHER.with_suffix(".json")
LSMS = "/sys/kernel/security"
NO_RULE = "version: 1\nrules: []\n"
PROGRAMS = "delegate_cmds: [prog_load], delegate_progs: [xdp]"
CONFINED = "version: 1\nrules:\n- {name: own, match: {%s}, allow: {%s}}\n"
OTHERS = f"""\
version: 1
rules:
- {{name: maps, match: {{user: root}}, allow: {{delegate_cmds: [map_create]}}}}
- {{name: trusted, match: {{user: root}}, allow: {{{PROGRAMS}, confined: false}}}}
- {{name: nobody, deny: because}}
"""
SUBORDINATE = "containers:2147483648:2147483647\n"
UNIT = "/etc/systemd/system/oci-bpf-hook-broker.socket"


class Host:
    """A host on which everything is well, for one run of doctor; what a test changes isn't.

    `files` are laid over the host's own in a mount namespace of that run, by their paths;
    `containers` is what /usr/share/containers is there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.files: dict[str, str] = dict.fromkeys(("/etc/subuid", "/etc/subgid"), SUBORDINATE)
        self.launcher = install(directory / "libexec")
        self.containers = directory / "containers"
        shutil.copytree("/usr/share/containers", self.containers)
        (self.containers / "seccomp.json").write_text(json.dumps(seccomp_profile()))
        self.json = self.containers / "oci" / "hooks.d" / HOOK_JSON.name
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.config = json.loads(HOOK_JSON.read_text())
        self.config["hook"]["path"] = str(self.launcher)
        self.write()

    def write(self) -> None:
        self.json.write_text(json.dumps(self.config))

    def doctor(
        self,
        *prefix: str,
        first: str = "",
        env: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> list[dict[str, str]]:
        """What doctor finds there; `first` is shell that runs before, in the same namespace."""
        # The session's /etc is shared, and this one is thrown away.
        lines = [
            "mount -t tmpfs none /mnt && mkdir /mnt/etc /mnt/work",
            "mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc",
            f"mount --bind {self.containers} /usr/share/containers",
        ]
        for number, (name, text) in enumerate(self.files.items()):
            source = self._directory / str(number)
            source.write_text(text)
            source.chmod(0o644)
            lines.append(f"mkdir -p {os.path.dirname(name)} && touch {name}")
            lines.append(f"mount --bind {source} {name}")
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        script = "\n".join([*lines, first, 'exec "$@"'])
        inside = ["unshare", "--mount", "sh", "-ec", script, "sh"]
        return findings(prefix=[*inside, *prefix, *(become if user else ())], env=env)


@pytest.fixture
def host() -> Iterator[Host]:
    directory = make_work_directory()
    # A broker of another test's leaves its socket behind.
    Path(BROKER).unlink(missing_ok=True)
    yield Host(directory)
    remove_work_directory(directory)


def causes(found: list[dict[str, str]]) -> set[str]:
    """The names of what isn't well, each with words and something to do."""
    wrong = not_well(found)
    assert all(one["why"] and one["fix"] for one in wrong.values()), wrong
    return set(wrong)


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
    host.files["/sys/kernel/btf/vmlinux"] = "no BTF\n"
    assert causes(host.doctor()) == {"btf"}


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


def about_the_guard(found: list[dict[str, str]]) -> dict[str, str]:
    (one,) = (one for one in found if one["what"] == "guard")
    return one


@pytest.mark.parametrize("match", ["", "user: root", "namespace: [a, b]"])
def test_rules_that_take_the_guard(host: Host, match: str) -> None:
    """A host that hasn't turned it on is told so, and has no problem."""
    host.files[POLICY] = CONFINED % (match, PROGRAMS)
    found = host.doctor()
    assert causes(found) == {"guard"}
    one = about_the_guard(found)
    assert one["state"] == "warning"
    assert one["why"].startswith("the guard isn't loaded, and ")
    assert one["why"].endswith("; without it no confined rule lets a program be loaded")


def test_the_built_in_policy_takes_the_guard(host: Host) -> None:
    found = host.doctor(first=f"rm {POLICY}")
    assert causes(found) == {"guard"}
    assert about_the_guard(found)["state"] == "warning"


@pytest.mark.parametrize("policy", [NO_RULE, OTHERS])
def test_rules_that_do_without_the_guard(host: Host, policy: str) -> None:
    host.files[POLICY] = policy
    found = host.doctor()
    assert causes(found) == set()
    assert about_the_guard(found)["why"].endswith("; no rule of the policy needs it")


def test_what_to_put_on_the_kernel_s_command_line(host: Host) -> None:
    host.files[POLICY] = CONFINED % ("", PROGRAMS)
    lines = (
        f"mount -t tmpfs none {LSMS}",
        f"printf capability,lockdown,yama,apparmor > {LSMS}/lsm",
    )
    found = host.doctor(first="\n".join(lines))
    assert causes(found) == {"guard"}
    one = about_the_guard(found)
    assert f"can't be turned on: BPF programs can't be LSMs on this host: {LSMS}/lsm" in one["why"]
    assert one["fix"] == (
        "put lsm=lockdown,yama,apparmor,bpf on the kernel's command line and reboot"
    )


def test_a_kernel_that_can_have_no_guard(host: Host) -> None:
    host.files |= {POLICY: CONFINED % ("", PROGRAMS), "/sys/kernel/btf/vmlinux": "no BTF\n"}
    found = host.doctor()
    assert causes(found) == {"btf", "guard"}
    one = about_the_guard(found)
    assert "can't be turned on: this kernel has no LSM hooks for BPF tokens" in one["why"]
    assert "confined: false" in one["fix"]


def test_who_can_t_tell_whether_there_is_a_guard(host: Host) -> None:
    host.files[POLICY] = CONFINED % ("", PROGRAMS)
    one = about_the_guard(host.doctor(user=65534))
    assert (one["state"], one["fix"]) == ("ok", "")
    assert one["why"] == "only root on the host can tell whether it is in force"


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


def test_a_broker_that_is_down(host: Host) -> None:
    host.files[UNIT] = "[Socket]\n"
    found = host.doctor()
    assert causes(found) == {"broker"}
    assert "enable --now" in not_well(found)["broker"]["fix"]


def test_a_broker_that_nobody_is_behind(host: Host) -> None:
    code = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"os.makedirs({os.path.dirname(BROKER)!r}, exist_ok=True)\n"
        f"sock.bind({BROKER!r})\n"
    )
    run = f'mount -t tmpfs none /run\n{sys.executable} -c "$CODE"'
    found = host.doctor(first=run, env={"CODE": code})
    assert causes(found) == {"broker"}
    assert "nobody listens" in not_well(found)["broker"]["why"]


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

"""The units of the guard: in force before anything that starts containers, and confined enough.

No systemd runs as pid 1 where these tests do, nor a kernel that loads the guard; so the scratch
container in which it is tried, and the loading as far as it goes, run within each restriction.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oci_bpf_hook.errors import KERNEL_CANNOT
from oci_bpf_hook.paths import BPFFS, GUARD, GUARD_LOCK
from tests.support.pins import bpffs, pin
from tests.support.policy import AUDIT
from tests.support.systemd import UNITS, allowed, bounded, run, settings

ROOT = UNITS.parents[1]
SERVICE = UNITS / "oci-bpf-hook-guard.service"
AUDITS = UNITS / "oci-bpf-hook-guard-audit.service"
TIMER = UNITS / "oci-bpf-hook-guard-audit.timer"
ENGINES = ("podman", "podman-restart", "crio", "containerd", "docker")
BROKER = "oci-bpf-hook-broker"
ON = (sys.executable, "-m", "oci_bpf_hook", "guard", "on")
AUDIT_COMMAND = (*ON[:-1], "audit")
# What is left of turning it on, as far as every kernel has it: the scratch container, and its end.
SCRATCH = """
from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.mount.scratch import ATTACH_0, SOCKET_FILTER, TRACEPOINT, Scratch, masks

def use(token):
    bpf.prog_load(SOCKET_FILTER, ATTACH_0, token)
    bpf.prog_load(TRACEPOINT, ATTACH_0, token)
    return ""

with Scratch(use=use) as scratch:
    failed = scratch.failed or scratch.delegate(masks(TRACEPOINT)) or scratch.use()
assert not failed, failed
"""
# And what it does with directories of the bpffs once all is pinned.
MOVE = f"""
import os
from oci_bpf_hook.kernel.process import exchange

os.mkdir(os.path.dirname({GUARD!r}), 0o700)
os.mkdir({GUARD!r}, 0o700)
os.mkdir({GUARD + "-next"!r}, 0o700)
exchange({GUARD + "-next"!r}.encode(), {GUARD!r}.encode())
os.rename({GUARD!r}, {GUARD + "-gone"!r})
os.rmdir({GUARD + "-gone"!r})
"""


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def refused(*prefix: str) -> str:
    """What `guard on` says, which gets as far as the kernel lets it load the programs."""
    done = subprocess.run(
        [*prefix, *ON], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == KERNEL_CANNOT, done.stderr
    return done.stderr


# ---- when --------------------------------------------------------------------------------------


def stubs(directory: Path, **changes: str) -> Path:
    """All our units and stand-ins for the engines', and a target that starts all of them."""
    wanted = ["basic.target", SERVICE.name, f"{BROKER}.socket"]
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/oci-bpf-hook", "/bin/true")
        for old, new in changes.items():
            text = text.replace(f"{old}=no\n", new)
        (directory / unit.name).write_text(text)
    for name in ENGINES:
        (directory / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
        wanted.append(f"{name}.service")
    for name in ("podman", "docker"):
        (directory / f"{name}.socket").write_text(f"[Socket]\nListenStream=/run/{name}.of-a-test\n")
        wanted.append(f"{name}.socket")
    target = directory / "everything.target"
    target.write_text(f"[Unit]\nRequires={' '.join(wanted)}\n")
    return target


def test_it_goes_before_the_engines_and_in_no_circle(tmp_path: Path) -> None:
    before = {name for value in settings(SERVICE)["Before"] for name in value.split()}
    assert before >= {f"{name}.service" for name in (*ENGINES, BROKER)} | {"basic.target"}
    assert run("systemd-analyze", "verify", "--man=no", str(stubs(tmp_path))) == ""


def test_a_circle_does_show(tmp_path: Path) -> None:
    """As every ordinary service it would come after the sockets, which it is to come before."""
    target = stubs(tmp_path, DefaultDependencies="")
    command = ["systemd-analyze", "verify", "--man=no", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ordering cycle" in done.stderr


def test_that_it_is_stopped_lets_go_of_nobody() -> None:
    (start,), (reload,) = settings(SERVICE)["ExecStart"], settings(SERVICE)["ExecReload"]
    assert start == reload == "/usr/bin/oci-bpf-hook guard on"
    assert not {"ExecStop", "ExecStopPost"} & settings(SERVICE).keys()


def test_its_audit_comes_and_goes_with_it() -> None:
    assert settings(SERVICE)["Wants"] == [TIMER.name]
    assert settings(AUDITS)["ConditionPathExists"] == [GUARD]
    assert settings(AUDITS)["ExecStart"] == ["/usr/bin/oci-bpf-hook guard audit"]
    assert settings(TIMER)["OnUnitInactiveSec"] == ["1min"]
    # journald would drop an audit trail that is sent to syslog, at the level info.
    assert "LogLevelMax" not in settings(AUDITS)


# ---- what it may -------------------------------------------------------------------------------

(CAPABILITIES,) = (value.split() for value in settings(SERVICE)["CapabilityBoundingSet"])


def test_these_capabilities_are_enough() -> None:
    with bpffs():
        prefix = bounded(CAPABILITIES)
        for text in (SCRATCH, MOVE):
            run(*prefix, *python(text))
        assert "can't be loaded, load: " in refused(*prefix)


@pytest.mark.parametrize("without", CAPABILITIES)
def test_each_is_needed(without: str) -> None:
    prefix = bounded([name for name in CAPABILITIES if name != without])
    done = subprocess.run([*prefix, *python(SCRATCH)], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode != 0


def test_the_system_calls_of_all_that_it_does(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-o", str(trace), "-A", "--")
    with bpffs():
        for text in (SCRATCH, MOVE):
            run(*strace, *python(text))
        refused(*strace)
    calls = made(trace)
    assert {"bpf", "fsopen", "mount", "renameat2", "rmdir", "setns", "unshare", "flock"} <= calls
    assert calls - allowed(SERVICE) == set()


def made(trace: Path) -> set[str]:
    return set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


def confined(*writable: str) -> list[str]:
    """A command that runs another as ProtectSystem=strict and ProcSubset=pid have it."""
    script = (
        "mount --make-rprivate /; "
        f"for path in {' '.join(writable)}; do "
        'mkdir -p "$path"; mountpoint -q "$path" || mount --bind "$path" "$path"; done; '
        "mount -t proc -o subset=pid,nosuid,nodev,noexec proc /proc; "
        "mount -o remount,bind,ro /; mount -o remount,bind,ro /run; "
        "mount -o remount,bind,ro /etc; mount -o remount,bind,ro /var/log; "
        "mount --rbind /sys /sys; mount -o remount,bind,ro /sys; "
        f"case ' {' '.join(writable)} ' in *' {BPFFS} '*) ;; "
        f"*) mount -o remount,bind,ro {BPFFS};; esac; "
        'exec "$@"'
    )
    return ["unshare", "-m", "--", "sh", "-ec", script, "sh"]


def test_it_works_where_it_may_write_nothing_else() -> None:
    """What it makes in its own mount namespace is there for everybody: it is the same bpffs."""
    (name,) = settings(SERVICE)["RuntimeDirectory"]
    assert str(Path(GUARD_LOCK).parent) == f"/run/{name}"
    assert settings(SERVICE)["ReadWritePaths"] == settings(SERVICE)["AssertPathIsMountPoint"]
    assert settings(SERVICE)["ReadWritePaths"] == [BPFFS]
    prefix = confined(BPFFS, f"/run/{name}")
    with bpffs() as place:
        run(*prefix, *bounded(CAPABILITIES), *python(SCRATCH))
        assert "can't be loaded, load: " in refused(*prefix, *bounded(CAPABILITIES))
        run(*prefix, "mkdir", str(place / "seen"))
        assert (place / "seen").is_dir()


def test_the_audit_takes_no_capability_and_writes_to_two_directories(tmp_path: Path) -> None:
    """It fails where the guard isn't one, and so what it does first is looked at by itself."""
    (runtime,), (logs,) = settings(AUDITS)["RuntimeDirectory"], settings(AUDITS)["LogsDirectory"]
    assert f"/var/log/{logs}" == str(AUDIT.parent)
    assert settings(AUDITS)["CapabilityBoundingSet"] == [""]
    prefix = [*confined(f"/run/{runtime}", f"/var/log/{logs}"), *bounded([])]
    trace = tmp_path / "trace"
    # PR_SET_MDWE, as MemoryDenyWriteExecute= uses it where the kernel has it (6.3).
    text = f"""
import ctypes
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
from oci_bpf_hook.guard.lsm import refusals
refusals.to_trail({GUARD!r})
"""
    with bpffs():
        pin()
        run(*prefix, *python(text))
        run("strace", "-f", "-qq", "-o", str(trace), "--", *python(text))
        done = subprocess.run(
            [*prefix, *AUDIT_COMMAND], capture_output=True, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == KERNEL_CANNOT
    assert "there are no refusals to record: the guard is of another version (0, " in done.stderr
    assert made(trace) - allowed(AUDITS) == set()
    assert "openat2" not in made(trace)

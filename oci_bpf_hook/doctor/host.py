"""The host: what has to be there before any container can have a delegation."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ..bpf.btf import BtfError
from ..bpf.names import KINDS
from ..broker.client import connect
from ..container.namespaces import is_initial
from ..errors import HookError
from ..kernel import enums as kernel
from ..kernel import process, releases
from ..paths import POLICY, SOCKET
from ..policy.store.cache import in_force
from ..running.process import Status, status_of
from . import containerd, engines, guarded, hooks, rootless, subordinate
from .engines import Engine
from .finding import Finding, ok, problem, warning
from .selftest import selftest

_UNITS = (
    "/etc/systemd/system/oci-bpf-hook-broker.socket",
    "/usr/lib/systemd/system/oci-bpf-hook-broker.socket",
    "/lib/systemd/system/oci-bpf-hook-broker.socket",
)
# Seconds.
_PATIENCE = 2


def check() -> Iterator[Finding]:
    """Everything about the host, with a live test at the end if we may make one."""
    found = engines.installed()
    yield from _kernel()
    yield _btf()
    yield from _user_namespaces()
    yield from _lsms()
    yield from engines.check(found)
    yield from hooks.check(found)
    yield from containerd.check(found)
    yield from _policy()
    yield from _speculation()
    yield from subordinate.check(found)
    yield _broker(found)
    lacking = _lacking(status_of("self"))
    if lacking:
        yield warning(
            "selftest",
            f"nothing was tried: that takes {lacking}",
            "sudo oci-bpf-hook doctor",
        )
    else:
        yield from selftest()


def _kernel() -> Iterator[Finding]:
    name = f"Linux {os.uname().release}"
    if releases.running().tokens:
        yield ok("kernel", name)
    else:
        yield problem("kernel", f"{name} {releases.TOO_OLD}", "boot Linux 6.9 or later")
    value = _sysctl("kernel/unprivileged_bpf_disabled")
    if value == "0":
        yield warning(
            "unprivileged-bpf",
            "kernel.unprivileged_bpf_disabled is 0: socket filters and simple maps work without a "
            "token here, and fail on hosts with another value",
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        )
    elif value:
        yield ok("unprivileged-bpf", f"kernel.unprivileged_bpf_disabled is {value}")


def _btf() -> Finding:
    try:
        kernel.from_btf(KINDS)
    except FileNotFoundError:
        return problem(
            "btf",
            f"this kernel has no BTF ({kernel.VMLINUX}): the names that are known from other "
            "kernels are used, and CO-RE programs don't load",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
    except (OSError, BtfError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return problem(
            "btf",
            f"{kernel.VMLINUX} is there, but this version can't read the kernel's names in it "
            f"({reason}); those that are known from other kernels are used",
            "upgrade oci-bpf-hook, or report this with the output of oci-bpf-hook kernel",
        )
    return ok("btf", f"the kernel's names are in {kernel.VMLINUX}")


def _user_namespaces() -> Iterator[Finding]:
    if not os.path.exists("/proc/self/ns/user"):
        yield problem("user-namespaces", "this kernel has no user namespaces (CONFIG_USER_NS)")
        return
    most = _sysctl("user/max_user_namespaces")
    if most == "0":
        yield problem(
            "user-namespaces",
            "user.max_user_namespaces is 0, so no container gets a user namespace",
            "sysctl -w user.max_user_namespaces=63359",
        )
        return
    # Both concern only users other than root.
    for name, barred in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        if _sysctl(name) == barred:
            key = name.replace("/", ".")
            yield warning(
                "user-namespaces",
                f"{key} is {barred}: rootless containers get no user namespace",
                f"sysctl -w {key}={1 - int(barred)}",
            )
            return
    yield ok("user-namespaces", "containers can have one")


def _lsms() -> Iterator[Finding]:
    from ..guard.lsm.load import LSMS

    try:
        active = Path(LSMS).read_text(encoding="ascii").strip()
    except OSError:
        return  # securityfs isn't mounted, so nothing can be said.
    if "selinux" in active.split(",") and _read("/sys/fs/selinux/enforce") == "1":
        yield warning(
            "selinux",
            "SELinux enforces, and the containers' own type may not use bpf(2): a refusal shows "
            "as avc: denied with tclass=bpf in the audit log",
            "ausearch -m avc -ts recent | grep tclass=bpf",
        )
    else:
        yield ok("lsm", f"active: {active}")


def _policy() -> Iterator[Finding]:
    """Whether the policy is in order, and whether what it says can be enforced."""
    try:
        policy = in_force()
    except HookError as error:
        yield problem("policy", f"{error}; no container is given anything", _policy_fix(error))
        yield guarded.of_host(None)
        return
    where = POLICY if os.path.exists(POLICY) else "the built-in policy"
    yield ok("policy", f"in order: {where}")
    yield guarded.of_host(policy)


def _speculation() -> Iterator[Finding]:
    # The verifier then leaves out its own barriers, too (Linux: include/linux/bpf.h,
    # bpf_bypass_spec_v1).
    if "mitigations=off" in _read("/proc/cmdline").split():
        yield warning(
            "mitigations",
            "the kernel runs with mitigations=off: nothing keeps programs, not even confined "
            "ones, from using what a processor does speculatively",
            "remove mitigations=off from the kernel's command line and reboot",
        )


def _policy_fix(error: HookError) -> str:
    return "; ".join(filter(None, (one.hint for one in error.problems))) or (
        f"oci-bpf-hook policy check {POLICY}"
    )


def _broker(found: list[Engine]) -> Finding:
    """Whether the broker answers, if anybody needs it: rootless engines do."""
    try:
        connect(SOCKET, _PATIENCE).close()
    except (FileNotFoundError, PermissionError) as error:
        return _no_broker(error, found)
    except (BlockingIOError, TimeoutError):
        return problem(
            "broker",
            f"the broker's socket {SOCKET} is there, but whoever asks waits for longer than "
            f"{_PATIENCE} seconds, because the broker or this host is too busy",
            "journalctl -u oci-bpf-hook-broker",
        )
    except OSError as error:
        reason = "nobody listens" if error.errno == errno.ECONNREFUSED else error.strerror
        return problem(
            "broker",
            f"the broker can't be reached at {SOCKET}: {reason}",
            "systemctl restart oci-bpf-hook-broker.socket",
        )
    return ok("broker", f"it listens on {SOCKET}")


def _no_broker(error: OSError, found: list[Engine]) -> Finding:
    sudo = "sudo " if os.geteuid() else ""
    installed = any(map(os.path.exists, _UNITS))
    if isinstance(error, PermissionError) and installed:
        return problem(
            "broker",
            f"this user may not connect to {SOCKET}, and so rootless engines get nothing",
            f"{sudo}chmod 755 {os.path.dirname(SOCKET)} && {sudo}chmod 666 {SOCKET}",
        )
    # A user without privilege who runs doctor is taken to have a rootless engine.
    sign = "" if os.geteuid() else next(rootless.signs(found), None)
    if sign is None:
        state = f"none listens on {SOCKET}" if installed else "none is installed"
        return ok("broker", f"{state}; rootless engines need it, rootful ones don't")
    return problem(
        "broker",
        f"no broker listens on {SOCKET}, so rootless engines get nothing{sign and f'; {sign}'}",
        f"{sudo}systemctl enable --now oci-bpf-hook-broker.socket",
    )


def _lacking(us: Status) -> str:
    """What we lack for a live test, or ""."""
    if us.uid != 0:
        return "root"
    if not is_initial():
        return "the initial user namespace"
    return "" if us.has(process.CAP_SYS_ADMIN) else "CAP_SYS_ADMIN"


def _sysctl(name: str) -> str:
    return _read(f"/proc/sys/{name}")


def _read(path: str) -> str:
    """The text of a small file, or "" if it isn't there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

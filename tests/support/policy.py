"""Policies for tests, in the session's own /etc, and the audit trail that comes of them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import oci_bpf_hook
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.paths import GUARD
from oci_bpf_hook.policy.store import cache, source

POLICY = Path("/etc/oci-bpf-hook/policy.yaml")
AUDIT = Path("/var/log/oci-bpf-hook/audit.jsonl")
CACHE = Path("/run/oci-bpf-hook/policy.compiled")
REFUSALS = Path("/run/oci-bpf-hook/refusals")
EVERYTHING = """\
version: 1
rules:
  - name: everything
    allow:
      confined: false
      delegate_cmds: [any]
      delegate_maps: [any]
      delegate_progs: [any]
      delegate_attachs: [any]
"""


def trusting(text: str) -> str:
    """The policy `text` with rules that do without the guard.

    For tests of something else, which are to hold on a kernel without BPF LSM too.
    """
    return re.sub(r"allow: \{(?=(.))", _trusting, text)


def _trusting(found: re.Match[str]) -> str:
    return "allow: {confined: false" + ("" if found[1] == "}" else ", ")


_DEVICES = """
  - name: devices
    match: {cdi: "*"}
    allow: {delegate_cmds: [any], delegate_maps: [any], delegate_progs: [any],
      delegate_attachs: [any]}
"""
# The built-in policy's rules, and one for devices, for tests of what these let through.
UNCONFINED = trusting(
    Path(oci_bpf_hook.__file__).with_name("policy.yaml").read_text(encoding="utf-8") + _DEVICES
)


def write(text: str) -> None:
    """Put a policy in force, as an administrator does: whole, by renaming."""
    POLICY.parent.mkdir(mode=0o755, exist_ok=True)
    new = POLICY.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(POLICY)
    keep_compiled()


def keep_compiled() -> None:
    """Compile the policy in force, and keep that at once.

    A hook keeps what it has compiled only once the file has settled. Until then each of them would
    compile it, which takes several times as long as the rest of it, and would fork its heir.
    """
    settled = source.SETTLED
    # The next policy is another file, and written at another time.
    source.SETTLED = -1
    try:
        with suppress(HookError):  # A policy may be out of order.
            cache.in_force(in_memory=True)
    finally:
        source.SETTLED = settled


def allow_everything() -> None:
    """Put the policy in force that most tests want."""
    write(EVERYTHING)


@contextmanager
def in_force(text: str | None) -> Iterator[None]:
    """Another policy for a while; None is the built-in one."""
    if text is None:
        POLICY.unlink()
    else:
        write(text)
    try:
        yield
    finally:
        allow_everything()


@contextmanager
def without_guard() -> Iterator[None]:
    """What this host may have loaded, our own mount namespace doesn't have for a while."""
    there = os.path.exists(GUARD)
    if there:
        subprocess.run(["mount", "-t", "tmpfs", "none", GUARD], check=True)
    try:
        yield
    finally:
        if there:
            subprocess.run(["umount", GUARD], check=True)


def audited() -> list[dict[str, Any]]:
    """The lines of the audit trail so far."""
    if not AUDIT.exists():
        return []
    return [json.loads(line) for line in AUDIT.read_text().splitlines()]

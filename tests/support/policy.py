"""Policies for tests, in the session's own /etc, and the audit trail that comes of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oci_bpf_hook

POLICY = Path("/etc/oci-bpf-hook/policy.yaml")
AUDIT = Path("/var/log/oci-bpf-hook/audit.jsonl")
CACHE = Path("/run/oci-bpf-hook/policy.compiled")
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

# The built-in policy's rules, for tests of what these let through: a kernel without BPF LSM has no
# guard, and there they let no programs through until they say that they do without one.
UNCONFINED = (
    Path(oci_bpf_hook.__file__)
    .with_name("policy.yaml")
    .read_text(encoding="utf-8")
    .replace("allow: {", "allow: {confined: false, ")
)


def write(text: str) -> None:
    """Put a policy in force, as an administrator does: whole, by renaming."""
    POLICY.parent.mkdir(mode=0o755, exist_ok=True)
    new = POLICY.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(POLICY)


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


def audited() -> list[dict[str, Any]]:
    """The lines of the audit trail so far."""
    if not AUDIT.exists():
        return []
    return [json.loads(line) for line in AUDIT.read_text().splitlines()]

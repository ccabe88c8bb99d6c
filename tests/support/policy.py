"""Policies for tests, in the session's own /etc, and the audit trail that comes of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLICY = Path("/etc/oci-bpf-hook/policy.yaml")
AUDIT = Path("/var/log/oci-bpf-hook/audit.jsonl")
CACHE = Path("/run/oci-bpf-hook/policy.compiled")
EVERYTHING = """\
version: 1
rules:
  - name: everything
    allow:
      delegate_cmds: [any]
      delegate_maps: [any]
      delegate_progs: [any]
      delegate_attachs: [any]
"""


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

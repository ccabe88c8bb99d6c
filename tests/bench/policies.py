"""Policies of many rules, each with its compiled form, to be put in force at once.

Each has a directory for /etc/oci-bpf-hook and one for /run/oci-bpf-hook, which are bound
there: a bind mount leaves the files what they are, and so the compiled form stays good.
"""

import json
import subprocess
from pathlib import Path

from tests.support.policy import CACHE, POLICY
from tests.support.scratch import Scratch

# Of these the middle one is for the user who owns a scratch container's namespace, root.
_RULE = """\
- name: team-{number}
  match: {{namespace: team-{number}, image: "registry.example/team-{number}/*"}}
  allow: {{delegate_cmds: [map_create, prog_load], delegate_maps: [hash], delegate_progs: [xdp]}}
"""
_MIDDLE = """\
- name: root
  match: {user: 0}
  allow:
    confined: false
    delegate_cmds: [any]
    delegate_maps: [any]
    delegate_progs: [any]
    delegate_attachs: [any]
"""
# How often a request is made until its policy's compiled form is kept: not within the first
# seconds of the file, when it may still be changing.
_TRIES = 10_000


class Policy:
    """A policy of so many rules, compiled, below `directory`."""

    def __init__(self, directory: Path, rules: int) -> None:
        self._etc = directory / str(rules) / "etc"
        self._run = directory / str(rules) / "run"
        self._etc.mkdir(parents=True)
        self._run.mkdir(mode=0o700)
        texts = [_RULE.format(number=number) for number in range(rules - 1)]
        texts.insert(rules // 2, _MIDDLE)
        text = "version: 1\naudit: {to: /var/log/oci-bpf-hook/audit.jsonl}\nrules:\n"
        (self._etc / POLICY.name).write_text(text + "".join(texts))

    def use(self) -> None:
        """Put it in force, until `put_back`."""
        put_back()
        for source, target in ((self._etc, POLICY.parent), (self._run, CACHE.parent)):
            target.mkdir(mode=0o755, exist_ok=True)
            subprocess.run(["mount", "--bind", str(source), str(target)], check=True)

    def compile(self) -> None:
        """Put it in force and have it compiled, as the hook does at the first request."""
        self.use()
        for _ in range(_TRIES):
            with Scratch() as container:
                done = container.hook({"io.bpffs.delegate_cmds": "map_create"})
                if done.returncode:
                    raise RuntimeError(json.dumps(done.stderr))
            if CACHE.exists():
                return
        raise RuntimeError("the compiled policy isn't kept")


def put_back() -> None:
    """Have in force what was in force before the first of these."""
    for target in (POLICY.parent, CACHE.parent):
        if target.is_mount():
            subprocess.run(["umount", str(target)], check=True)

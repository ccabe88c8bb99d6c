"""Files of every format, mutated: each ends in a finding, an answer, or a refusal that names it.

The mutants are always the same; MUTANTS in the environment makes more of them, and SEED others.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.delegation.annotations import PREFIX
from oci_bpf_hook.errors import BUG, EXITS
from tests.cli.commands.test_convert import INCUS, LXD, PODMAN, SYSTEMD
from tests.cli.commands.test_formats import FORMS
from tests.formats.test_others import HELM
from tests.support.command import Done, command

MUTANTS = int(os.environ.get("MUTANTS", "25"))
SEED = os.environ.get("SEED", "")
# Seconds of processor time for one command, a hundred times what it takes.
_LONGEST = 20

FILES = {
    **FORMS,
    "web.container.d/a.conf": "[Container]\nAnnotation=io.bpffs.profile=xdp\nLabel=io.bpffs.a=b\n",
    "web.kube": "[Kube]\nYaml=pod.yaml\nUserNS=auto\nPodmanArgs=--annotation a=b\n",
    "x.volume": "[Volume]\nUser=0\n",
    "cronjob.yaml": """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: probe, labels: {io.bpffs.profile: xdp}}
spec:
  jobTemplate:
    spec:
      template:
        metadata:
          annotations: &asked {io.bpffs.delegate_cmds: map_create}
        spec:
          hostUsers: false
          initContainers: []
          containers: [{name: probe, securityContext: {capabilities: {add: [BPF]}}}]
          ephemeralContainers: [{name: debug}]
---
apiVersion: example.org/v1
kind: Prober
spec: {podMetadata: {annotations: {<<: *asked}}}
""",
    "override.yaml": """\
services:
  probe:
    userns_mode: !override auto
    cap_add: !reset [ALL]
    annotations: [io.bpffs.delegate_cmds=map_create]
    labels: !reset
""",
    "chart.yaml": HELM[1],
    "chart.json": HELM[4],
    "incus.yaml": INCUS,
    "lxd.yaml": LXD,
    "x.service": SYSTEMD,
    "command": PODMAN,
}
_PIECES = [
    *("\0", "\t", "\r", "\ufeff", "'", '"', "{", "}", "[", "]", ":", ": ", ",", "-", "- ", "#"),
    *(
        "&a ",
        "*a",
        "<<: ",
        "!x ",
        "!reset ",
        "!!binary ",
        "|\n",
        ">\n",
        "---\n",
        "...\n",
        "? ",
        "%",
    ),
    *(
        "{{ .Values.x }}",
        "{{- if x }}\n",
        "null",
        "~",
        "true",
        "0o7",
        "1e9",
        "-1",
        "[]",
        "{}",
        "\\",
    ),
    *("[Container]\n", "[Pod]\n", "[]\n", "Pod=x.pod\n", "Yaml=/\n", "Annotation=\n", "\\\n"),
    *("io.bpffs.", "io.bpffs.profile", "io.bpffs.delegate_cmds/x", "kind: List\nitems: ", "é", "𐍈"),
]
_COMMANDS: tuple[Callable[[Path | str], tuple[Path | str, ...]], ...] = (
    lambda file: ("check", "--file", file),
    lambda file: ("check", "--json", "--engine", "podman", "--file", file),
    lambda file: ("explain", "--file", file),
    lambda file: ("convert", "--from", "kubernetes", "--to", "quadlet", file),
    lambda file: ("convert", "--from", "quadlet", "--to", "kubernetes", file),
)


def mutants(text: str, chance: random.Random) -> Iterator[str]:
    """So many texts that differ from `text` in a few places."""
    while True:
        changed = text
        for _ in range(chance.choice((1, 1, 2, 4))):
            changed = chance.choice(_MUTATIONS)(changed, chance)
        yield changed


def _insert(text: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + chance.choice(_PIECES) + text[at:]


def _replace(text: str, chance: random.Random) -> str:
    """The text with another value, of whatever type, after one of its keys."""
    marks = [at for at, character in enumerate(text) if character in ":="]
    if not marks:
        return text
    at = chance.choice(marks) + 1
    end = text.find("\n", at)
    return text[:at] + " " + chance.choice(_PIECES) + ("" if end < 0 else text[end:])


def _cut(text: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + text[at + chance.randint(1, 40) :]


def _shorten(text: str, chance: random.Random) -> str:
    return text[: chance.randint(0, len(text))]


def _lines(text: str, chance: random.Random) -> str:
    """The text with a line left out, given twice, moved, or indented otherwise."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    line = lines.pop(at)
    kept: list[list[str]] = [[], [line, line], [f"  {line}"], [line[2:]]]
    lines[at:at] = chance.choice(kept)
    if chance.random() < 0.2:
        lines.insert(chance.randint(0, len(lines)), line)
    return "\n".join(lines)


def _another(text: str, chance: random.Random) -> str:
    """The beginning of the text and the end of another."""
    other = FILES[chance.choice(sorted(FILES))]
    return text[: chance.randint(0, len(text))] + other[chance.randint(0, len(other)) :]


_MUTATIONS = (_insert, _insert, _replace, _replace, _cut, _shorten, _lines, _lines, _another)


@contextmanager
def in_time() -> Iterator[None]:
    """Interrupt what takes too much of the processor, as ^C does."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def right(done: Done, file: str) -> bool:
    """Whether it ended as documented, and said something; a refusal names the file or the key."""
    if done.returncode not in EXITS.keys() - {BUG}:
        return False
    if not done.stdout:
        lines = done.stderr.splitlines()
        named = file in done.stderr or PREFIX in done.stderr
        return named and all(line.startswith("oci-bpf-hook: ") for line in lines)
    return done.stdout.endswith("\n") and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", FILES)
def test_mutants(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    for beside in ("x.pod", "pod.yaml"):
        (tmp_path / beside).write_text(FORMS.get(beside, FORMS["web.pod"]))
    chance = random.Random(name + SEED)
    several = mutants(FILES[name], chance)
    for number in range(MUTANTS):
        text = FILES[name] if number == 0 else next(several)
        path.write_text(text, "utf-8")
        call = _COMMANDS[number % len(_COMMANDS)]
        with in_time():
            from_file = command(*call(path))
            from_stdin = command(*call("-"), stdin=text)
        assert right(from_file, str(tmp_path)), (text, from_file)
        assert right(from_stdin, "standard input"), (text, from_stdin)

"""completion.py: what the three shells themselves make of it, as somebody types."""

import os
import pty
import select
import shlex
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.cli.completion import FILES
from oci_bpf_hook.cli.options.table import ENTRIES
from oci_bpf_hook.cli.tree import Leaf, is_option, leaves
from oci_bpf_hook.delegation.annotations import KEYS, PREFIX
from tests.support.places import ROOT

COMPLETIONS = ROOT / "contrib" / "completions"
# For bash and zsh.
QUOTED = shlex.quote(str(COMPLETIONS))
# Seconds that a shell may take for its answer at the very most.
LIMIT = 60


@pytest.mark.parametrize("name", FILES)
def test_they_are_not_stale(name: str) -> None:
    assert (COMPLETIONS / name).read_text() == FILES[name]()


@pytest.mark.parametrize(
    "command",
    [
        ("bash", "-n", "oci-bpf-hook.bash"),
        ("zsh", "-n", "_oci-bpf-hook"),
        ("fish", "-n", "oci-bpf-hook.fish"),
        ("shellcheck", "-s", "bash", "oci-bpf-hook.bash"),
    ],
    ids=" ".join,
)
def test_syntax(command: tuple[str, ...]) -> None:
    done = subprocess.run(command, cwd=COMPLETIONS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- typed at a terminal: what is behind each TAB, and what the command is called with

TYPED = [
    ("che\t", "check"),
    ("kern\t --dif\t 6.12", "kernel --diff 6.12"),
    ("hel\t expl\t", "help explain"),
    ("pol\t te\t --eng\t cri\t", "policy test --engine cri-o"),
    (
        "check --annotation io.bpffs.delegate_att\txdp",
        "check --annotation io.bpffs.delegate_attachs=xdp",
    ),
    ("inst\t --stage createC\t", "install --stage createContainer"),
    ("convert --from inc\t --to quad\t prof\t", "convert --from incus --to quadlet profile.yaml"),
    ("explain --file prof\t", "explain --file profile.yaml"),
    ("install --prefix deep\t", "install --prefix deep"),
]


class _Shell:
    """A shell at a terminal, in a directory with files in it and a program that says its words."""

    def __init__(self, command: list[str], directory: Path, setup: str) -> None:
        (directory / "profile.yaml").write_text("")
        (directory / "deeper").mkdir()
        program = directory / "oci-bpf-hook"
        program.write_text("#!/bin/sh\nprintf 'called: %s;' \"$*\"\n")
        program.chmod(0o755)
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os.chdir(directory)
            os.execvpe(
                command[0],
                command,
                {
                    "PATH": f"{directory}:{os.environ['PATH']}",
                    "TERM": "vt100",
                    "HOME": str(directory),
                    "LANG": "C.UTF-8",
                },
            )
        self._seen = ""
        self.type(f"{setup}\n")
        self.expect("all is set")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, words: str) -> str:
        """What comes up to `words`."""
        while words not in self._seen:
            ready, _, _ = select.select([self._fd], [], [], LIMIT)
            assert ready, f"no {words!r} in {self._seen!r}"
            self._seen += os.read(self._fd, 4096).decode()
        before, _, self._seen = self._seen.partition(words)
        return before

    def close(self) -> None:
        os.close(self._fd)
        os.waitpid(self._pid, 0)


def called(shell: _Shell, typed: str) -> str:
    """What the command is called with when somebody types that."""
    shell.type(f"oci-bpf-hook {typed}\n")
    shell.expect("called: ")
    return shell.expect(";").strip()


def test_bash(tmp_path: Path) -> None:
    # The last word of what is typed isn't of the setup's own echo.
    setup = f"PS1= ; source {QUOTED}/oci-bpf-hook.bash; echo all is se''t"
    shell = _Shell(["bash", "--norc", "--noprofile", "-i"], tmp_path, setup)
    try:
        assert [called(shell, typed).rstrip("/") for typed, _ in TYPED] == [
            words.replace("deep", "deeper") for _, words in TYPED
        ]
    finally:
        shell.close()


def test_zsh(tmp_path: Path) -> None:
    setup = (
        f"PS1= PROMPT_EOL_MARK= ; fpath=({QUOTED} $fpath); autoload -Uz compinit; "
        "compinit -u -D; zstyle ':completion:*' insert-tab false; echo all is se''t"
    )
    shell = _Shell(["zsh", "-f", "-i"], tmp_path, setup)
    try:
        assert [called(shell, typed).rstrip("/") for typed, _ in TYPED] == [
            words.replace("deep", "deeper") for _, words in TYPED
        ]
    finally:
        shell.close()


# ---- asked for in a script: every option of every command


def in_bash(*words: str) -> set[str]:
    script = (
        f'source {QUOTED}/oci-bpf-hook.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        "_oci_bpf_hook; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    command = ["bash", "--norc", "-c", script, "bash", "oci-bpf-hook", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def in_fish(*words: str, cwd: Path | None = None) -> set[str]:
    line = " ".join(("oci-bpf-hook", *words))
    script = f"source $argv[1]; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", script, f"{COMPLETIONS}/oci-bpf-hook.fish"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert done.stderr == ""
    return {row.partition("\t")[0] for row in done.stdout.splitlines()}


FIRST = {word for entry in ENTRIES for word in (entry.name, *entry.aliases)}


def test_first_words() -> None:
    assert in_bash("") == FIRST | {"--help", "--version"}
    assert in_fish("") == FIRST
    assert in_bash("policy", "") == in_fish("policy", "") == {"check", "show", "test"}
    assert in_bash("help", "") == in_fish("help", "") == FIRST


@pytest.mark.parametrize("leaf", tuple(leaves()), ids=lambda leaf: " ".join(leaf.words))
def test_every_option(leaf: Leaf) -> None:
    options = {one.names[0] for one in leaf.command.arguments if is_option(one)}
    assert in_bash(*leaf.words, "--") == options | {"--help"}
    assert in_fish(*leaf.words, "--") == options | {"--help"}
    for one in leaf.command.arguments:
        if "choices" in one.settings:
            values = set(one.settings["choices"])
            assert in_bash(*leaf.words, one.names[0], "") == values
            assert in_fish(*leaf.words, one.names[0], "") == values


def test_annotations() -> None:
    keys = {f"{PREFIX}{key}=" for key in KEYS}
    assert in_bash("check", "--annotation", "") == keys
    assert in_fish("check", "--annotation", "") == keys


def test_files_in_fish(tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("")
    assert in_fish("explain", "--file", "prof", cwd=tmp_path) == {"profile.yaml"}
    assert in_fish("convert", "prof", cwd=tmp_path) == {"profile.yaml"}
    assert in_fish("kernel", "prof", cwd=tmp_path) == set()

"""No input brings a traceback: command lines, annotations and files of any kind."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bpf_hook.cli.commands.convert import _READERS, _WRITERS
from oci_bpf_hook.cli.options.table import ENTRIES
from oci_bpf_hook.cli.tree import is_option, leaves
from oci_bpf_hook.delegation.annotations import KEYS, PREFIX
from oci_bpf_hook.errors import BUG, EXITS
from tests.cli.commands.test_convert import INCUS, LXD, PODMAN, SYSTEMD
from tests.formats.test_containers import COMPOSE, POD, QUADLET, STATES
from tests.support.command import Done, command

# Those that change something, wait for somebody, or run what they are given.
ACTING = {"broker", "hook", "install", "record", "uninstall"}
ACTING |= {"delegate", "doctor", "inspect"}  # test_commands_any_input has these.
OPTIONS = sorted(
    {one.names[0] for leaf in leaves() for one in leaf.command.arguments if is_option(one)}
)
TEXT = st.text(max_size=24)
ANNOTATION = st.builds(
    lambda key, suffix, value: f"{PREFIX}{key}{suffix}={value}",
    st.sampled_from(KEYS) | TEXT,
    st.sampled_from(["", "/web", "/"]),
    TEXT | st.sampled_from(["any", "0x21", "map_create:prog_load", "!any", "5", "any,!kprobe"]),
)
WORD = st.one_of(
    TEXT,
    st.sampled_from(OPTIONS),
    st.sampled_from(["/dev/null", "/", "6.12", "6.8", "-", "--", "true", "image=x", "podman"]),
    ANNOTATION,
)
NAMES = sorted({entry.name for entry in ENTRIES} - ACTING)
FILES = {
    "x.container": QUADLET,
    "config.json": (STATES / "cri-o-1.37-crun" / "createRuntime.config.json").read_text()[:3000],
    "state.json": (STATES / "cri-o-1.37-crun" / "createRuntime.state.json").read_text(),
    "pod.yaml": POD,
    "compose.yaml": COMPOSE,
    "incus.yaml": INCUS,
    "lxd.yaml": LXD,
    "unit": SYSTEMD,
    "command": PODMAN,
}

# A file that a command reads, and what it makes of it, take their time.
fuzzed = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def fine(done: Done) -> None:
    """It ended as documented: a known code, whole lines, none of them a traceback."""
    assert done.returncode in EXITS.keys() - {BUG}, done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode and not done.stdout and "usage: " not in done.stderr:
        assert all(line.startswith("oci-bpf-hook: ") for line in done.stderr.splitlines())
        assert done.stderr.endswith("\n")


@fuzzed
@given(st.sampled_from(NAMES) | TEXT, st.lists(WORD, max_size=5))
def test_command_lines(name: str, words: list[str]) -> None:
    if name in ACTING:
        return
    fine(command(name, *words, stdin="{}"))


@fuzzed
@given(st.sampled_from(["check", "explain", "lint"]), st.lists(ANNOTATION, min_size=1, max_size=4))
def test_annotations(name: str, annotations: list[str]) -> None:
    fine(command(name, *(f"--annotation={one}" for one in annotations)))


def mutated(text: str) -> st.SearchStrategy[str]:
    """`text` with a piece cut out, or another put in."""
    at = st.integers(0, len(text))
    piece = TEXT | st.sampled_from(["\0", "\n", "'", '"', "{", "[", "&a", "*a", "<<: ", "%", "\\"])
    return st.builds(
        lambda start, length, new: text[:start] + new + text[start + length :],
        at,
        st.integers(0, 8),
        piece,
    )


@pytest.mark.parametrize("name", FILES)
@fuzzed
@given(data=st.data())
def test_files(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_text(data.draw(mutated(FILES[name])), "utf-8")
    for call in (("check", "--file"), ("explain", "--file"), ("check", "--json", "--file")):
        fine(command(*call, path))
    fine(command("explain", "--state", path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "annotations",
                        "linux",
                        "process",
                        "user",
                        "uid",
                        "namespaces",
                        "type",
                        "kind",
                    ),
                    *("apiVersion", "metadata", "spec", "containers", "name", "items", "template"),
                    *("services", "pid", "status", "bundle", "id", "root", "config", "maskedPaths"),
                    *("uidMappings", "containerID", "hostID", "capabilities", "labels", "image"),
                    *(
                        "securityContext",
                        "add",
                        "hostUsers",
                        "io.bpffs.delegate_cmds",
                        "hostNetwork",
                    ),
                ]
            )
            | TEXT,
            inner,
            max_size=5,
        )
    ),
    max_leaves=16,
)


@fuzzed
@given(JSON)
def test_json_of_any_shape(value: object) -> None:
    text = json.dumps(value)
    for call in (("check", "--file", "-"), ("explain", "--state", "-"), ("check", "--state", "-")):
        fine(command(*call, stdin=text))


@fuzzed
@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    fine(command("check", "--file", "-", stdin=data))
    fine(command("explain", "--state", "-", stdin=data))


@pytest.mark.parametrize("source", _READERS)
@fuzzed
@given(data=st.data())
def test_convert(source: str, data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(_WRITERS)))
    texts = [QUADLET, POD, COMPOSE, INCUS, LXD, SYSTEMD, PODMAN]
    text = data.draw(st.one_of(mutated(data.draw(st.sampled_from(texts))), JSON.map(json.dumps)))
    fine(command("convert", "--from", source, "--to", target, stdin=text.encode()))

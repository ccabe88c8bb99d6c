"""Where `oci-bpf-hook check` says that something is wrong: at the item, however it is written."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oci_bpf_hook.delegation import lint
from oci_bpf_hook.delegation.masks import resolve
from oci_bpf_hook.errors import REFUSED, UNKNOWN_NAME, HookError, Problem
from oci_bpf_hook.text import places
from tests.formats.test_containers import POD
from tests.support.command import answer
from tests.support.policy import in_force

PREFIX = "io.bpffs."
# Of words that our own sentences have, and with a rule for each way to refuse.
POLICY = """\
version: 1
engine: cri-o
profiles:
  allow: {delegate_cmds: [prog_load]}
  rule: {delegate_maps: [hash]}
  policy: {delegate_progs: [xdp]}
  own-net: {delegate_cmds: [map_create]}
rules:
  - {name: denies, match: {namespace: denied}, deny: ask about the path and the mode}
  - name: r
    match: {}
    allow:
      delegate_cmds: [map_create]
      delegate_maps: [array]
      paths: [/sys/fs/bpf]
      modes: ["1777"]
"""
FAULTS = (
    # Unknown, in capitals, with the kernel's prefix and taken away.
    ("delegate_cmds: 'map_create, ^PROG_LODE'", "delegate_cmds"),
    ("delegate_cmds: any ^!BPF_PROG_LODE", "delegate_cmds"),
    ("delegate_cmds: map_create:^BPFProgLode:prog", "delegate_cmds"),
    # The words are in the sentences, too.
    ("profile: own-net:^own", "profile"),
    ("profile: 'rule policy  ^profile'", "profile"),
    ("delegate_cmds: is,^5", "delegate_cmds"),
    ("delegate_cmds: map_create,^a-name", "delegate_cmds"),
    ("delegate_cmds: '^!map_create,!prog_load'", "delegate_cmds"),
    ("delegate_cmds: '^!any'", "delegate_cmds"),
    ("delegate_cmds: map_create,^0xg", "delegate_cmds"),
    ("profile: own-net ^a/b", "profile"),
    ("mode: ^rwx", "mode"),
    ('path: "^a/../b c"', "path"),
    ("on_unknown: ^maybe", "on_unknown"),
    ("record: ^-x", "record"),
    # A key as it is written, whatever others there are.
    ("delegate_cmd: ^any", "delegate_cmd"),
    ("delegate_cmds/: ^any", "delegate_cmds/"),
    ("delegate_cmds: any\n    io.bpffs.delegate_cmds/probe: ^nonsense", "delegate_cmds/probe"),
    ("delegate_cmds: any\n    io.bpffs.delegate_cmds/probe: '^5'", "delegate_cmds/probe"),
    # Refused by the rule.
    ("delegate_cmds: map_create,^BPF_PROG_LOAD", "delegate_cmds"),
    ("delegate_maps: '^0x00F2'", "delegate_maps"),
    ("delegate_maps: array,^any,!hash", "delegate_maps"),
    ("profile: ^own-net allow", "profile"),
    ("delegate_cmds: map_create\n    io.bpffs.path: ^/elsewhere//", "path"),
    ("delegate_cmds: map_create\n    io.bpffs.mode: '^0755'", "mode"),
    ("record: ^r", "record"),
)
DOUBTS = (
    ("delegate_cmds: map_create,^BPF_OBJ_GET", "delegate_cmds"),
    ("delegate_cmds: map_create:^BPFObjGet", "delegate_cmds"),
    ("delegate_cmds: ^MAP_CREATE", "delegate_cmds"),
    ("profile: ^own-net", "profile"),
)


class Written(NamedTuple):
    """A file with a pod for each of FAULTS and DOUBTS, in this order, and where each has its ^."""

    path: Path
    policy: Path
    spots: tuple[places.Spot, ...]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    directory = tmp_path_factory.mktemp("places")
    policy, path = directory / "policy.yaml", directory / "pods.yaml"
    policy.write_text(POLICY)
    text = ""
    spots = []
    for marked, _ in (*FAULTS, *DOUBTS):
        before, mark, after = f"{text}{pod(marked)}---\n".partition("^")
        assert mark
        text = before + after
        spots.append(places.spot_of(text, len(before)))
    path.write_text(text)
    return Written(path, policy, tuple(spots))


@pytest.fixture(scope="module")
def found(written: Written) -> list[list[dict[str, Any]]]:
    """What is said of the container `probe` of each pod."""
    _, answered = answer("check", "--file", written.path, "--policy", written.policy)
    probes = [one for one in answered["containers"] if one["name"].endswith("container probe")]
    assert len(probes) == len(written.spots)
    return [one["findings"] for one in probes]


def pod(annotations: str) -> str:
    return POD.replace("io.bpffs.delegate_cmds: map_create,prog_load", PREFIX + annotations)


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[marked for marked, _ in FAULTS])
def test_a_problem(number: int, found: list[list[dict[str, Any]]], written: Written) -> None:
    problems = [one for one in found[number] if one["level"] == "problem"]
    said = [(one["annotation"], one["line"], one["column"]) for one in problems]
    spot = written.spots[number]
    assert (PREFIX + FAULTS[number][1], spot.line, spot.column) in said, problems


@pytest.mark.parametrize("number", range(len(DOUBTS)), ids=[marked for marked, _ in DOUBTS])
def test_a_doubt(number: int, found: list[list[dict[str, Any]]], written: Written) -> None:
    first = next(one for one in found[len(FAULTS) + number] if one["lint"])
    spot = written.spots[len(FAULTS) + number]
    said = (first["annotation"], first["line"], first["column"])
    assert said == (PREFIX + DOUBTS[number][1], spot.line, spot.column)


def test_what_the_administrator_writes_is_no_place(written: Written, tmp_path: Path) -> None:
    """The reason of a deny rule is about the path and the mode in its own words alone."""
    path = tmp_path / "pod.yaml"
    path.write_text(
        pod("delegate_cmds: map_create\n    io.bpffs.path: /a\n    io.bpffs.mode: '0700'")
    )
    denied = ("--attr", "namespace=denied")
    _, answered = answer("check", "--file", path, "--policy", written.policy, *denied)
    for one in answered["containers"]:
        (problem,) = (each for each in one["findings"] if each["level"] == "problem")
        assert problem["text"].endswith("ask about the path and the mode")
        assert problem["annotation"] is None


def test_a_path_that_nobody_wrote(written: Written, tmp_path: Path) -> None:
    """The default is in no annotation, whatever else is asked for."""
    path = tmp_path / "config.json"
    linux = {"namespaces": [{"type": "user"}], "maskedPaths": ["/sys/fs"]}
    more: dict[str, str]
    for more in ({}, {PREFIX + "path": "/sys/fs/bpf"}):
        asked = {PREFIX + "profile": "own-net", **more}
        path.write_text(json.dumps({"annotations": asked, "linux": linux}))
        _, answered = answer("check", "--file", path, "--policy", written.policy)
        findings = answered["containers"][0]["findings"]
        (masked,) = (one for one in findings if "is masked by the engine" in one["text"])
        assert masked["annotation"] == (PREFIX + "path" if more else None)


def test_the_rule_to_add_is_a_hint(found: list[list[dict[str, Any]]]) -> None:
    number = [marked for marked, _ in FAULTS].index("delegate_cmds: map_create,^BPF_PROG_LOAD")
    refused = [one for one in found[number] if one["code"] == REFUSED]
    assert [one["level"] for one in refused] == ["problem", "hint"]
    assert refused[1]["text"].startswith("to allow it")
    assert refused[1]["annotation"] is None


# ---- nothing is found by reading what we say ----------------------------------------------------


@contextmanager
def in_tongues() -> Iterator[None]:
    """Have every sentence be another, and another for each, with no word of ours in it."""

    def other(text: str | None) -> str | None:
        return text and hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    with pytest.MonkeyPatch.context() as patch:
        for kind, names in (
            (Problem, ("text", "hint")),
            (lint.Finding, ("reason", "fix")),
            (places.Fault, ("text",)),
        ):
            make = kind.__init__

            def made(
                self: object, *texts: str, _make: Any = make, _names: Any = names, **more: Any
            ) -> None:
                given = dict(zip(_names, texts, strict=False)) | more
                _make(self, **{key: other(v) if key in _names else v for key, v in given.items()})

            patch.setattr(kind, "__init__", made)
        yield


def places_of(name: str, *arguments: str | Path) -> list[object]:
    """All that the command `name` says of each container but in words."""
    code, found = answer(name, *arguments)
    said = [
        (
            one["code"],
            one["rule"],
            [
                {key: value for key, value in finding.items() if key != "text"}
                for finding in one["findings"]
            ],
        )
        for one in found["containers"]
    ]
    return [code, *said]


@pytest.mark.parametrize("name", ["check", "explain"])
def test_other_words_change_nothing(name: str, written: Written) -> None:
    arguments = ("--file", written.path, "--policy", written.policy)
    expected = places_of(name, *arguments)
    with in_tongues():
        assert "no command" not in str(Problem("no command"))
        assert places_of(name, *arguments) == expected


def test_other_words_change_nothing_in_the_built_in_policy() -> None:
    asked = ("--annotation", f"{PREFIX}profile=xdp", "--attr", "host_network=true")
    with in_force(None):
        expected = places_of("check", *asked)
        with in_tongues():
            assert places_of("check", *asked) == expected


# ---- the record itself --------------------------------------------------------------------------


def test_every_unknown_name_has_its_place() -> None:
    from oci_bpf_hook.bpf.names import KINDS
    from oci_bpf_hook.delegation.annotations import parse
    from oci_bpf_hook.kernel import enums as kernel

    asked = {f"{PREFIX}{kind.option}": "NONSENSE:!nonsense" for kind in KINDS}
    request = parse(asked | {f"{PREFIX}profile": "a b"}, lambda: None)
    assert request is not None
    with pytest.raises(HookError) as caught:
        resolve(request, kernel.enums(KINDS), kernel.table, {})
    assert caught.value.code == UNKNOWN_NAME
    found = [(one.key, one.item) for one in caught.value.problems]
    lists = [(kind.option, "nonsense") for kind in KINDS]
    assert found == [("profile", "a"), ("profile", "b"), *lists]

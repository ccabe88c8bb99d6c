"""Every form, read back by who it is for, as far as that is here."""

import json

import pytest
import yaml

from oci_bpf_hook.advise import calls, needs
from oci_bpf_hook.advise.needs import Caution, from_json
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.delegation.annotations import parse
from oci_bpf_hook.delegation.masks import resolve
from oci_bpf_hook.formats import advised, convert_to
from oci_bpf_hook.formats.delegation import Delegation
from oci_bpf_hook.formats.snippets import dns_label
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.policy.store.file import load

ENUMS = table().enums(KINDS)
HOSTILE = 'a\x1b[2J\n- evil: "\u202e'


def example(source: str = "a.o") -> needs.Needs:
    return needs.make(
        reasons=[
            *calls.map_create("lru_hash", source=source, kind=needs.MAP, why="map flows"),
            *calls.prog_load("netfilter", "netfilter", source=source, kind="program", why="p"),
        ],
        warnings=[Caution(code="host-network", source=source, text="beware of this")],
    )


def render(form: str, found: needs.Needs | None = None, name: str = "counters") -> str:
    return advised.render(form, found or example(), ENUMS, name)


def masks(annotations: dict[str, str]) -> dict[str, int]:
    request = parse(annotations, lambda: None)
    assert request
    return resolve(request, ENUMS, table, {})[0].masks


def test_text() -> None:
    text = render("text")
    assert "delegate_cmds: map_create, prog_load\n" in text
    assert "capabilities: NET_ADMIN, BPF\n" in text
    assert "delegate_maps lru_hash\n  a.o\n    map flows\n" in text
    assert "  a.o: host-network: beware of this" in text
    assert " alone" not in text
    both = render("text", example() | example("b.o"))
    assert "b.o alone\n  delegate_cmds: map_create, prog_load\n" in both
    assert "delegate_maps: none" in render("text", needs.NOTHING)


def test_annotations() -> None:
    """What podman is given; a line is a word."""
    lines = render("annotations").splitlines()
    assert all(" " not in line for line in lines)
    assert lines[:2] == ["--cap-add=NET_ADMIN", "--cap-add=BPF"]
    pairs = (line.removeprefix("--annotation=").partition("=") for line in lines[2:])
    assert masks({key: text for key, _, text in pairs}) == example().masks(ENUMS)


def test_json() -> None:
    assert from_json(json.loads(render("json")), ENUMS) == example()


@pytest.mark.parametrize("name", ["counters", "123", "yes"])
def test_policy(name: str) -> None:
    """A policy with it is in order, and the profile is what was needed."""
    rules = f"version: 1\nrules: [{{name: all, allow: {{profiles: ['{name}']}}}}]\n"
    loaded = load((rules + render("policy", name=name)).encode(), "p.yaml")
    assert loaded.header["profiles"] == {name: example().masks(ENUMS)}


def test_quadlet() -> None:
    section, *lines = render("quadlet").splitlines()
    assert section == "[Container]"
    assert lines[:2] == ["UserNS=auto", "AddCapability=NET_ADMIN BPF"]
    pairs = (line.removeprefix("Annotation=").partition("=") for line in lines[2:])
    assert masks({key: text for key, _, text in pairs}) == example().masks(ENUMS)


@pytest.mark.parametrize("name", ["counters", "123", "yes"])
def test_kubernetes(name: str) -> None:
    pod = yaml.safe_load(render("kubernetes", name=name))
    assert masks(pod["metadata"]["annotations"]) == example().masks(ENUMS)
    assert pod["spec"]["hostUsers"] is False
    (container,) = pod["spec"]["containers"]
    assert container["name"] == name
    assert container["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "BPF"]


def test_incus() -> None:
    config = yaml.safe_load(render("incus"))["config"]
    options = {key.removeprefix("security.bpffs."): text for key, text in config.items()}
    wanted = example().lists(ENUMS)
    assert options == {kind.option: ",".join(wanted[kind.option]) for kind in KINDS}


def test_systemd() -> None:
    """Its names are ones that we take too."""
    lines = dict(line.split("=") for line in render("systemd").splitlines() if "=" in line)
    assert lines["PrivateBPF"] == "yes"
    keys = ("Commands", "Maps", "Programs", "Attachments")
    annotations = {
        f"io.bpffs.{kind.option}": lines[f"BPFDelegate{key}"]
        for kind, key in zip(KINDS, keys, strict=True)
    }
    assert masks(annotations) == example().masks(ENUMS)
    assert "BPFMapTypeLruHash" in lines["BPFDelegateMaps"]
    assert "# systemd 258" in render("systemd")


@pytest.mark.parametrize("program", sorted(ENUMS["delegate_progs"].values))
def test_systemd_by_either_command(program: str) -> None:
    """What systemd makes something else of is said, and its settings are those of `convert`."""
    found = needs.make(
        reasons=calls.prog_load(program, "xdp", source="a.o", kind="program", why="p"), warnings=()
    )
    lists = found.lists(ENUMS)
    request = parse(
        {f"io.bpffs.{k.option}": ":".join(lists[k.option]) or "0x0" for k in KINDS}, str
    )
    assert request
    written = convert_to.systemd(Delegation(name="a", image=None, request=request), {})
    lines = render("systemd", found).splitlines()
    assert [line for line in lines if line[0] != "#"] == written.text.splitlines()
    assert [line for line in lines if line[0] == "#"] == [f"# {note}" for note in written.notes]
    assert bool(written.notes) == (program in ("netfilter", "syscall"))


@pytest.mark.parametrize("form", advised.FORMS)
def test_names_of_somebody_elses(form: str) -> None:
    hostile = needs.make(
        reasons=calls.map_create("hash", source=HOSTILE, kind=needs.MAP, why=HOSTILE),
        warnings=[Caution(code="x", source=HOSTILE, text=HOSTILE)],
    )
    text = render(form, hostile)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not any(line.startswith("- evil") for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("counters", "counters"),
        ("My_Agent v2", "my-agent-v2"),
        ("-x-", "x"),
        ("", "other"),
        ("\u00e9", "other"),
        ("a" * 100, "a" * 63),
        # Kubernetes takes no name that ends in one.
        ("a" * 62 + "_b", "a" * 62),
    ],
)
def test_names(text: str, expected: str) -> None:
    assert dns_label(text, "other") == expected

"""formats/: who asks for what in each kind of file, and where it stands."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.errors import BAD_STATE, USAGE, HookError
from oci_bpf_hook.formats import podman_run
from oci_bpf_hook.formats.container import Asker
from oci_bpf_hook.formats.containers import read
from oci_bpf_hook.formats.json_places import documents
from oci_bpf_hook.formats.means import Lack, lacks
from oci_bpf_hook.text.places import Spot
from tests.support.places import ROOT

STATES = ROOT / "tests" / "data" / "states"
CMDS = "io.bpffs.delegate_cmds"


def only(text: str, name: str) -> Asker:
    (found,) = read(text.encode(), name)
    return found


def doubts(text: str, name: str) -> list[tuple[int, str]]:
    """What is doubtful about the containers that ask, each once."""
    found: list[tuple[int, str]] = []
    for one in read(text.encode(), name):
        found += [(doubt.line, doubt.text) for doubt in (*one.doubts, *one.lacks)]
        found += [(lack.spot.line, str(lack)) for lack in lacking(one) if lack.spot]
    return list(dict.fromkeys(found))


def lacking(one: Asker) -> list[Lack]:
    """What a container lacks that only makes a token."""
    return list(lacks(one.means, None, {})) if one.means else []


def refused(text: str | bytes, name: str, code: int = USAGE) -> list[str]:
    with pytest.raises(HookError) as caught:
        read(text.encode() if isinstance(text, str) else text, name)
    assert caught.value.code == code
    return [problem.removeprefix(f"{name}:") for problem in caught.value.sentences]


# ---- Kubernetes

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: monitoring
  annotations:
    io.bpffs.delegate_cmds: map_create,prog_load
    other: "1"
spec:
  hostUsers: false
  initContainers:
    - {name: first, image: init, securityContext: {privileged: true}}
  containers:
    - name: probe
      image: registry.example/agent:1
      securityContext:
        capabilities: {add: [CAP_BPF]}
"""


def test_a_pod() -> None:
    first, probe = read(POD.encode(), "pod.yaml")
    assert probe.name == "Pod web-0, container probe"
    assert probe.annotations[CMDS] == "map_create,prog_load"
    assert probe.where == first.where == {CMDS: Spot(line=7, column=29)}
    assert probe.subject == {
        "container": "probe",
        "image": "registry.example/agent:1",
        "pod": "web-0",
        "namespace": "monitoring",
        "host_network": False,
    }
    assert (probe.user_namespace, probe.lacks, first.lacks) == (True, (), ())
    assert probe.here == Spot(line=14, column=13)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("spec", "template")),
        ("StatefulSet", ("spec", "template")),
        ("CronJob", ("spec", "jobTemplate", "spec", "template")),
        ("PodTemplate", ("template",)),
    ],
)
def test_what_makes_pods(kind: str, path: tuple[str, ...]) -> None:
    indent = "  " * len(path)
    pod = "".join(f"{indent}{line}\n" for line in POD.splitlines()[2:])
    opening = "".join(f"{'  ' * depth}{key}:\n" for depth, key in enumerate(path))
    text = f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web}}\n{opening}{pod}"
    first, probe = read(text.encode(), "x.yaml")
    assert probe.name == f"{kind} web, container probe"
    assert probe.where == {CMDS: Spot(line=8 + len(path), column=29 + 2 * len(path))}
    assert (*first.lacks, *probe.lacks, *first.doubts, *probe.doubts) == ()


def test_many_documents_and_lists() -> None:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Service"}]})
    text = f"{POD}---\napiVersion: v1\nkind: Service\nmetadata: {{name: x}}\n---\n---\n{POD}"
    assert len(read(text.encode(), "x.yaml")) == 4
    assert read(listed.encode(), "x.json") == ()
    inner = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [_as_data(POD)]}, indent=1)
    found = read(inner.encode(), "x.json")[1]
    (spot,) = found.where.values()
    assert inner.splitlines()[spot.line - 1][spot.column - 1 :].startswith('"map_create,prog_load"')


def _as_data(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


def test_a_pod_without_what_it_takes() -> None:
    text = POD.replace("  hostUsers: false\n", "").replace("[CAP_BPF]", "[NET_ADMIN]")
    text = text.replace(
        "      image: registry", "      securityContext: 1\n      image: registry", 0
    )
    found = doubts(text, "pod.yaml")
    assert [line for line, _ in found] == [10, 13]
    assert "set hostUsers: false" in found[0][1]
    assert "nothing adds CAP_BPF" in found[1][1]


def test_a_user_that_isnt_root() -> None:
    text = POD.replace("capabilities: {", "runAsUser: 1000\n        capabilities: {")
    ((line, words),) = doubts(text, "pod.yaml")
    assert line == 14
    assert "runs as the user 1000" in words


def test_keys_for_one_container() -> None:
    text = POD.replace(f"{CMDS}:", f"{CMDS}/probe:").replace(
        'other: "1"', "io.bpffs.profile/none: xdp"
    )
    first, second = doubts(text, "pod.yaml")
    assert (first[0], second[0]) == (7, 8)
    assert "refuses a key with _ before its /" in first[1]
    assert 'this pod has no container "none"' in second[1]
    podmans = POD.replace('other: "1"', "io.bpffs.profile/web-0-probe: xdp")
    ((line, words),) = doubts(podmans, "pod.yaml")
    assert line == 8
    assert words.endswith(
        'only podman kube play calls this container "web-0-probe"; Kubernetes calls it "probe"'
    )


def test_annotations_that_no_pod_gets() -> None:
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  annotations:\n"
        f"    {CMDS}: any\nspec: {{template: {{spec: {{containers: [{{name: a}}]}}}}}}\n"
    )
    found = doubts(text, "x.yaml")
    assert found[0][0] == 5
    assert "its pods don't get it" in found[0][1]


def test_values_that_are_no_text() -> None:
    text = POD.replace('other: "1"', "io.bpffs.mode: 0755")
    assert refused(text, "p.yaml") == [
        '8:20: the value of "io.bpffs.mode" isn\'t a text; put it in quotes'
    ]
    text = POD.replace(
        '    io.bpffs.delegate_cmds: map_create,prog_load\n    other: "1"\n', "  - a\n"
    )
    assert refused(text, "p.yaml") == ["7:3: the annotations aren't a mapping"]


# ---- Compose

COMPOSE = """\
x-bpf: &bpf
  cap_add: [BPF]
  userns_mode: auto
services:
  probe:
    <<: *bpf
    image: agent
    annotations:
      io.bpffs.delegate_cmds: map_create
  other:
    image: agent
    network_mode: host
    annotations:
      - io.bpffs.delegate_cmds=prog_load
      - a=b
    labels:
      io.bpffs.delegate_maps: hash
"""


def test_compose() -> None:
    probe, other = read(COMPOSE.encode(), "compose.yaml")
    assert probe.name == "service probe"
    assert probe.annotations == {CMDS: "map_create"}
    assert probe.where == {CMDS: Spot(line=9, column=31)}
    assert (probe.user_namespace, probe.lacks, probe.doubts) == (True, (), ())
    assert other.annotations == {CMDS: "prog_load", "a": "b"}
    assert other.where == {CMDS: Spot(line=14, column=9)}
    assert other.subject == {"host_network": True, "image": "agent"}
    texts = {doubt.line: doubt.text for doubt in other.doubts}
    assert "io.bpffs.delegate_maps is a label here" in texts[17]
    assert any("userns_mode: auto" in lack.text for lack in other.lacks)
    assert [lack.code for lack in lacking(other)] == ["cap-bpf"]


# ---- Quadlet

QUADLET = """\
[Unit]
Description=a probe

[Container]
ContainerName=probe
Image=agent
UserNS=auto
AddCapability=CAP_BPF CAP_NET_ADMIN
# Commas, colons, or blanks in quotes.
Annotation=io.bpffs.delegate_cmds=map_create,prog_load
Annotation="io.bpffs.delegate_maps=hash array" \\
    io.bpffs.delegate_progs=xdp
PodmanArgs=--annotation io.bpffs.delegate_attachs=xdp --cap-add=PERFMON
Network=host

[Service]
Annotation=not.ours=1
"""


def test_quadlet() -> None:
    found = only(QUADLET, "/etc/containers/systemd/x.container")
    assert found.name == "container probe"
    assert found.annotations == {
        CMDS: "map_create,prog_load",
        "io.bpffs.delegate_maps": "hash array",
        "io.bpffs.delegate_progs": "xdp",
        "io.bpffs.delegate_attachs": "xdp",
    }
    assert found.where[CMDS] == Spot(line=10, column=12)
    assert found.where["io.bpffs.delegate_progs"] == Spot(line=11, column=12)
    assert found.subject == {"host_network": True, "container": "probe", "image": "agent"}
    assert (found.user_namespace, found.lacks) == (True, ())


def test_quadlet_without_what_it_takes() -> None:
    text = "[Container]\nImage=x\nUser=7\nAnnotation=io.bpffs.profile=xdp\n"
    first, second = doubts(text, "x.container")
    assert "add UserNS=auto" in first[1]
    assert "CAP_BPF" in second[1]
    assert only(text, "web.container").name == "container web"


def test_quadlet_that_is_none() -> None:
    assert refused('[Container]\nnonsense\nAnnotation="a=b\n', "x.container") == [
        '2:1: "nonsense" should be KEY=VALUE',
        '3:12: "\\"a=b" ends within quotes',
    ]
    assert refused(b"\xff", "x.container") == [" this isn't UTF-8 (at byte 0)"]


# ---- podman's command line


def test_podman_arguments() -> None:
    words = (
        "podman run --name=web --userns auto --cap-add BPF,NET_ADMIN --annotation a=b=c -d IMAGE"
    )
    (found,) = podman_run.commands(f"{words} --annotation c=d")
    assert found.annotations == {"a": "b=c"}
    assert found.image == "IMAGE"
    assert (found.name, found.user_namespace) == ("web", True)
    assert found.capabilities == ["BPF", "NET_ADMIN"]
    assert not podman_run.arguments(["--userns=host"]).user_namespace


# ---- OCI


@pytest.mark.parametrize("path", sorted(STATES.rglob("*.json")), ids=lambda path: str(path)[-60:])
def test_real_files(path: Path) -> None:
    if path.name.endswith("context.json"):
        return
    text = path.read_text()
    (found,) = read(text.encode(), str(path))
    assert found.asks()
    for key, spot in found.where.items():
        line = text.splitlines()[spot.line - 1]
        assert line[spot.column - 1 :].startswith(json.dumps(found.annotations[key]))
    if "config" in path.name:
        assert found.user_namespace is ("rootless" not in str(path))
        assert found.owner == {True: (100000, 100000), False: None}.get(
            found.user_namespace
        ) or found.owner == (200000, 200000)


def test_a_config_that_lacks_everything() -> None:
    config = {
        "annotations": {CMDS: "any"},
        "process": {"user": {"uid": 7}, "capabilities": {"bounding": ["CAP_CHOWN"]}},
        "linux": {"maskedPaths": ["/sys/fs", 7], "namespaces": [{"type": "mount"}, 1]},
    }
    found = only(json.dumps(config, indent=2), "config.json")
    assert found.user_namespace is False
    assert found.masked == ("/sys/fs",)
    assert found.subject == {"host_network": True}
    assert [lack.code for lack in lacking(found)] == ["cap-bpf", "ambient"]


@pytest.mark.parametrize("text", ["{", '{"a": 1,}', '{"process": {}} x', '{"id": NaN}'])
def test_what_is_no_json(text: str) -> None:
    (problem,) = refused(text, "config.json", BAD_STATE)
    assert "1:" in problem
    assert "this isn't JSON" in problem


@pytest.mark.parametrize("text", ["", "a: 1\n", "- a\n", "kind: Pod\n", '{"a": 1}'])
def test_what_is_none_of_them(text: str) -> None:
    (problem,) = refused(text, "x.yaml")
    assert "x.yaml isn't an OCI config.json" in problem


def test_annotations_that_are_no_strings() -> None:
    (problem,) = refused('{"process": {}, "annotations": {"a": 1}}', "c.json", BAD_STATE)
    assert "isn't a JSON object whose annotations are strings" in problem


# ---- places in JSON

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_places_in_json(value: object, indent: int | str | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    decoder = json.JSONDecoder(strict=False)
    lines = text.split("\n")
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    if not isinstance(value, dict | list):
        value, text = [value], f"[{text}]"
        lines[0] = f"[{lines[0]}"
    ((_, places),) = documents(text)
    for place, spot in places.items():
        wanted: object = value
        for key in place:
            wanted = wanted[key]  # type: ignore[index]
        assert decoder.raw_decode(text, starts[spot.line - 1] + spot.column - 1)[0] == wanted

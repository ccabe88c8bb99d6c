"""containers.py: what is no container or isn't ready, and files with several documents."""

import json

import pytest

from oci_bpf_hook.errors import BAD_STATE, USAGE
from oci_bpf_hook.formats.containers import read, read_all
from oci_bpf_hook.text.places import Spot
from tests.formats.test_containers import CMDS, COMPOSE, POD, STATES, doubts, only, refused

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
CUSTOM = """\
apiVersion: monitoring.example/v1
kind: Prober
metadata:
  name: edge
spec:
  podMetadata:
    annotations:
      io.bpffs.delegate_cmds: map_create
      other: x
"""


def others(text: str, name: str = "x.yaml") -> tuple[str, ...]:
    found = read_all(text.encode(), name)
    assert found.askers == ()
    return found.others


# ---- objects that make no pods


def test_objects_that_make_no_pods() -> None:
    assert others(SERVICE) == ("Service web",)
    assert others(f"{SERVICE}---\napiVersion: v1\nkind: ConfigMap\n") == (
        "Service web",
        "ConfigMap without a name",
    )
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Service"}, {}]})
    assert others(listed) == ("Service without a name", "an object without a kind without a name")
    assert others("services: {}\n") == ("a compose file without services",)
    assert others('{"apiVersion": "v1", "kind": "List", "items": []}') == ()


@pytest.mark.parametrize(
    "version", ["v1", "apps/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"]
)
def test_annotations_on_what_makes_no_pods(version: str) -> None:
    text = f"apiVersion: {version}\nkind: Thing\nmetadata:\n  annotations: {{{CMDS}: any}}\n"
    (one,) = read(text.encode(), "x.yaml")
    assert not one.asks()
    (doubt,) = one.doubts
    assert (doubt.line, doubt.column) == (4, 17)
    assert f"{CMDS} is on the Thing without a name, which makes no pods" in doubt.text


def test_a_kustomization_is_rendered_first() -> None:
    text = f"apiVersion: v1\nkind: Kustomization\ncommonAnnotations: {{{CMDS}: any}}\n"
    (doubt,) = only(text, "kustomization.yaml").doubts
    assert doubt.text.endswith("which kubectl kustomize DIRECTORY renders; check what that prints")


def test_a_custom_resource() -> None:
    """What it asks for is tried, and who decides about it is said."""
    one = only(CUSTOM, "x.yaml")
    assert one.name == "Prober edge"
    assert one.annotations == {CMDS: "map_create", "other": "x"}
    assert one.where == {CMDS: Spot(line=8, column=31)}
    (doubt,) = one.doubts
    assert doubt.line == 7
    assert "only the controller of the kind Prober decides" in doubt.text
    assert others(CUSTOM.replace("io.bpffs.", "com.example.")) == ("Prober edge",)
    one = only(CUSTOM.replace("map_create", "5"), "x.yaml")
    assert (one.asks(), len(one.doubts)) == (False, 2)


def test_a_custom_resource_with_a_pod_template() -> None:
    """It is read as every other object that makes pods is."""
    template = CUSTOM.replace("podMetadata:", "template:").replace(
        "    annotations:",
        "    spec: {containers: [{name: a}]}\n    metadata: {}\n    annotations:",
    )
    assert only(template, "x.yaml").name == "Prober edge, container a"


def test_aliases_are_looked_into_once() -> None:
    lines = ["apiVersion: a.b/v1", "kind: X", f"a0: &a0 {{{CMDS}: any}}"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 14)]
    assert only("\n".join(lines), "x.yaml").asks()


# ---- labels, and containers that were missed


def test_labels_of_a_pod() -> None:
    text = POD.replace("  annotations:\n", "  labels: {io.bpffs.profile: xdp}\n  annotations:\n", 1)
    ((line, words),) = doubts(text, "pod.yaml")
    assert (line, words) == (6, "io.bpffs.profile is a label here; put it under annotations")
    as_json = json.dumps(_data(text), indent=1)
    ((line, words),) = doubts(as_json, "pod.json")
    assert '"io.bpffs.profile"' in as_json.split("\n")[line - 1]


def test_ephemeral_containers() -> None:
    text = f"{POD}  ephemeralContainers: [{{name: debug}}]\n"
    debug = read(text.encode(), "pod.yaml")[2]
    assert debug.name == "Pod web-0, container debug"
    assert debug.means
    assert not debug.means.adds("BPF", None)


def _data(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


# ---- Compose's tags


def test_composes_own_tags() -> None:
    text = COMPOSE.replace("[BPF]", "!override [BPF]").replace(
        "    labels:\n", "    cap_drop: !reset [ALL]\n    user: !reset null\n    labels: !reset\n"
    )
    probe, other = read(text.encode(), "compose.yaml")
    assert (probe.lacks, probe.annotations) == ((), {CMDS: "map_create"})
    assert probe.means
    assert probe.means.adds("BPF", None)
    assert other.doubts == ()


def test_a_tag_that_nobody_knows() -> None:
    (problem,) = refused("services: {a: {image: !Ref b}}\n", "compose.yaml")
    assert problem.startswith('1:23: "!Ref" is a tag')


# ---- templates

HELM = [
    POD.replace("web-0", "{{ .Release.Name }}"),
    POD.replace("hostUsers: false", "{{- toYaml .Values.spec | nindent 2 }}"),
    '{{- include "web.labels" . }}\n' + POD,
    POD.replace("map_create,prog_load", '"{{ .Values.cmds }}"'),
    '{"apiVersion": "v1", "kind": "Pod", "spec": {{ .Values.spec | toJson }}}',
    "{{ toJson .Values.pod }}",
]


@pytest.mark.parametrize("text", HELM)
def test_a_template(text: str) -> None:
    """It is named with what to do, at its place, and no error of YAML's or JSON's is shown."""
    (problem,) = refused(text, "pod.yaml")
    line, column, words = problem.split(":", 2)
    assert "render it first, with helm template" in words
    at = text.split("\n")[int(line) - 1][int(column) - 1 :]
    assert "{{" in at[:4]


def test_braces_that_are_no_template() -> None:
    """Other programs have templates of their own in values."""
    text = POD.replace('other: "1"', 'other: "{{ $labels.instance }}"')
    assert len(read(text.encode(), "pod.yaml")) == 2
    wrong = f"{POD}: }}\n{{{{ late }}}}\n".replace("\n{{", "\n\n\n\n\n{{")
    assert "this isn't YAML" in refused(wrong, "pod.yaml")[0]


# ---- several documents


def test_json_documents() -> None:
    """One after another, as jq prints them, and in an array."""
    pods = [json.dumps(_data(POD.replace("web-0", f"web-{n}")), indent=n) for n in range(3)]
    for text in ("\n".join(pods), f"[{','.join(pods)}]", f" [\n{','.join(pods)}]\n"):
        found = read(text.encode(), "standard input")
        assert [one.name.partition(",")[0] for one in found[::2]] == [
            "Pod web-0",
            "Pod web-1",
            "Pod web-2",
        ]
        for one in found:
            spot = one.where[CMDS]
            assert text.split("\n")[spot.line - 1][spot.column - 1 :].startswith('"map_create')


def test_a_pod_with_a_status_is_no_state() -> None:
    data = {**json.loads(json.dumps(_data(POD))), "status": {"phase": "Running"}}
    assert len(read(json.dumps(data).encode(), "pod.json")) == 2


def test_configs_in_an_array() -> None:
    config = (STATES / "cri-o-1.37-crun" / "createRuntime.config.json").read_text()
    first, second = read(f"[{config}, {config}]".encode(), "standard input")
    assert first.asks()
    assert first.where.keys() == second.where.keys()
    assert all(spot.line < second.where[key].line for key, spot in first.where.items())


@pytest.mark.parametrize("text", ['{"process": {},}', '[{"process": {}},]', '{"id": 1} {', "{"])
def test_what_is_nearly_json(text: str) -> None:
    """YAML allows more than JSON does, but a runtime doesn't."""
    assert "this isn't JSON" in refused(text, "standard input", BAD_STATE)[0]


def test_yaml_in_braces() -> None:
    text = "{apiVersion: v1, kind: Pod, spec: {containers: [{name: a}]}}"
    assert [one.name for one in read(text.encode(), "standard input")] == [
        "Pod without a name, container a"
    ]


# ---- formats that nobody here knows


@pytest.mark.parametrize(
    "text",
    [
        'resource "x" {\n  a = 1\n}\n',
        "#!/bin/sh\necho 'a\n",
        "<xml><a/></xml>",
        "\x00\x01",
        "%YAML",
        "@a: `b`",
        "a: b: c",
        "podman run --annotation a=b image",
    ],
)
def test_another_format(text: str) -> None:
    """It is named with what was expected, and not as a fault of YAML."""
    (problem,) = refused(text, "standard input")
    assert "standard input isn't an OCI config.json or state, a Kubernetes manifest" in problem


def test_a_fault_in_a_format_that_is_known() -> None:
    for text, name in (("kind: Pod\n a: b\n", "standard input"), ("a: b: c", "x.yaml")):
        assert "this isn't YAML" in refused(text, name, USAGE)[0]


# ---- what else a hint takes


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (
            f"[Container]\nImage=x\nAnnotation={CMDS}=any\nUserNS=host\n",
            "x.container",
            "UserNS=host gives this container the host's user namespace, ",
        ),
        (
            f"services:\n  a:\n    annotations: {{{CMDS}: any}}\n    userns_mode: host\n",
            "compose.yaml",
            "userns_mode: host gives this container the host's user namespace, ",
        ),
    ],
)
def test_the_hosts_user_namespace(text: str, name: str, words: str) -> None:
    """No engine's configuration is asked then, and the setting itself has to be changed."""
    (lack,) = only(text, name).lacks
    assert lack.text.startswith(words)
    assert lack.line == 4

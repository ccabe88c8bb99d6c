"""formats/: what the containers and pods in each kind of file will be called, by each engine."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.formats.container import Asker
from oci_bpf_hook.formats.containers import read
from oci_bpf_hook.policy.forms import samples
from oci_bpf_hook.text.places import Spot

PROFILE = "io.bpffs.profile"
NAMES = ("container", "image", "namespace", "pod")


def manifest(
    kind: str,
    *,
    outer: Mapping[str, str] | None = None,
    inner: Mapping[str, str] | None = None,
    **spec: Any,
) -> str:
    """An object called web with a template, and with annotations on both."""
    template = {
        "metadata": {"annotations": dict(inner or {})},
        "spec": {"containers": [{"name": "probe", "image": "reg/agent:1"}]},
    }
    metadata = {"name": "web", "namespace": "mon", "annotations": dict(outer or {})}
    data: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    data["spec"] = {**spec, "template": template} if kind != "Pod" else template["spec"]
    return yaml.safe_dump(data, sort_keys=False)


def only(text: str, name: str = "x.yaml", engine: str | None = None) -> Asker:
    (found,) = read(text.encode(), name, engine)
    return found


def known(one: Asker) -> dict[str, object]:
    return {key: value for key, value in one.subject.items() if key in NAMES}


def doubts(one: Asker) -> list[str]:
    return [doubt.text for doubt in one.doubts]


# ---- Kubernetes


def test_a_templates_name_is_no_pods_name() -> None:
    one = only(manifest("Deployment", inner={PROFILE: "xdp"}))
    assert known(one) == {"container": "probe", "image": "reg/agent:1", "namespace": "mon"}
    assert one.forms["pod"].glob == "web-*"
    assert one.forms["pod"].what == "the names of the pods of the Deployment web"
    assert one.named == Spot(line=4, column=9)
    assert one.name == "Deployment web, container probe"


def test_a_pods_name_is_its_own() -> None:
    one = only(manifest("Pod", outer={PROFILE: "xdp"}))
    assert known(one)["pod"] == "web"
    assert (one.forms, one.globs) == ({}, {})
    live = manifest("Pod").replace("name: web", "name: web-x7k2p\n  generateName: web-", 1)
    one = only(live)
    assert known(one)["pod"] == "web-x7k2p"
    assert one.globs == {"pod": "web-*"}


def test_a_pod_that_gets_a_name() -> None:
    one = only(manifest("Pod").replace("name: web", "generateName: web-", 1))
    assert "pod" not in one.subject
    assert one.forms["pod"].what == "the name of this pod"


# ---- podman kube play


def test_podman_has_names_of_its_own() -> None:
    key = f"{PROFILE}/web-probe"
    one = only(manifest("Pod", outer={key: "xdp"}), engine="podman")
    assert one.subject["container"] == "web-probe"
    assert one.annotations == {key: "xdp"}
    assert one.told == ("container",)
    assert not one.forms
    assert "podman kube play --userns=auto" in one.lacks[0].text
    assert doubts(one) == []


@pytest.mark.parametrize("engine", ["cri-o", "containerd"])
def test_keys_for_podman_are_for_nobody_else(engine: str) -> None:
    key = f"{PROFILE}/web-probe"
    one = only(manifest("Pod", outer={key: "xdp"}), engine=engine)
    assert one.subject["container"] == "probe"
    (doubt,) = doubts(one)
    assert doubt.startswith(f'{key}: only podman kube play calls this container "web-probe"; ')


def test_keys_say_for_whom_a_file_is() -> None:
    """If nobody names the engine; a key for Kubernetes among them says that it isn't podman."""
    podmans = {f"{PROFILE}/web-probe": "xdp"}
    one = only(manifest("Pod", outer=podmans))
    assert one.subject["container"] == "web-probe"
    assert len(one.doubts) == 1
    both = {**podmans, f"{PROFILE}/probe": "tc"}
    assert only(manifest("Pod", outer=both)).subject["container"] == "probe"
    plain = {PROFILE: "xdp"}
    assert only(manifest("Pod", outer=plain)).subject["container"] == "probe"
    # Of a Deployment podman gives containers its own annotations.
    of_deployment = {f"{PROFILE}/web-pod-probe": "xdp"}
    one = only(manifest("Deployment", outer=of_deployment))
    assert one.annotations == of_deployment
    assert "container" in one.forms


def test_keys_for_kubernetes_under_podman() -> None:
    one = only(manifest("Pod", outer={f"{PROFILE}/probe": "xdp"}), engine="podman")
    (doubt,) = doubts(one)
    assert doubt.startswith(f'{PROFILE}/probe: podman kube play calls this container "web-probe"; ')
    one = only(manifest("Pod", outer={f"{PROFILE}/none": "xdp"}), engine="podman")
    assert doubts(one) == [f'{PROFILE}/none: this pod has no container "none"']


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "Job"])
def test_podman_does_not_read_the_templates_annotations(kind: str) -> None:
    text = manifest(kind, outer={PROFILE: "xdp"}, inner={PROFILE: "tc"})
    one = only(text, engine="podman")
    assert one.annotations == {PROFILE: "xdp"}
    assert text.splitlines()[one.where[PROFILE].line - 1].strip() == f"{PROFILE}: xdp"
    (doubt,) = one.doubts
    assert f"what the {kind} itself has; put it under the {kind}'s metadata.annotations" in (
        doubt.text
    )
    assert text.splitlines()[doubt.line - 1].strip() == f"{PROFILE}: tc"
    # And Kubernetes reads nothing else.
    assert only(text, engine="cri-o").annotations[PROFILE] == "tc"


def test_a_deployment_of_podmans() -> None:
    one = only(manifest("Deployment", outer={PROFILE: "xdp"}, replicas=2), engine="podman")
    form = one.forms["container"]
    assert "container" not in one.subject
    assert form.example == "web-pod-probe"
    numbered = [f"web-pod-{number}-probe" for number in range(3)]
    assert [name in samples(form, [name]) for name in numbered] == [True, True, False]
    of_one = only(manifest("DaemonSet", outer={PROFILE: "xdp"}), engine="podman")
    assert of_one.subject["container"] == "web-pod-probe"


def test_what_podman_does_not_play() -> None:
    one = only(manifest("StatefulSet", outer={PROFILE: "xdp"}), engine="podman")
    assert doubts(one) == ["podman kube play makes no containers from this StatefulSet"]


# ---- Quadlet


@pytest.mark.parametrize(
    ("unit", "settings", "name"),
    [
        ("web", "", "systemd-web"),
        ("my.web", "", "systemd-my.web"),
        ("web", "ContainerName=a", "a"),
        ("web", "ContainerName=%N-%p-%%", "web-web-%"),
        ("web", "ServiceName=other", "systemd-other"),
        ("web", "ContainerName=a\nPodmanArgs=--name=b", "b"),
        ("web@1", "", "systemd-web_1"),
        ("web@1", "ContainerName=%p.%i", "web.1"),
    ],
)
def test_what_quadlet_calls_a_container(unit: str, settings: str, name: str) -> None:
    one = only(f"[Container]\nImage=x\n{settings}\n", f"/etc/containers/systemd/{unit}.container")
    assert (one.subject["container"], one.forms) == (name, {})


@pytest.mark.parametrize(
    ("unit", "settings", "glob", "name"),
    [
        ("web@", "", "systemd-web_*", "systemd-web_blue"),
        ("web@", "ContainerName=%i", "", "blue"),
        ("web@", "ContainerName=%N", "web@*", "web@blue"),
        ("web", "ContainerName=web-%H", "web-*", "web-node7"),
    ],
)
def test_what_only_systemd_knows(unit: str, settings: str, glob: str, name: str) -> None:
    one = only(f"[Container]\nImage=x\n{settings}\n", f"{unit}.container")
    assert "container" not in one.subject
    form = one.forms["container"]
    assert form.glob == glob
    assert name in samples(form, [name])


# ---- Compose


def service(project: str = "", **settings: object) -> Asker:
    data = {"services": {"web": {"image": "x", **settings}}}
    return only(yaml.safe_dump({**({"name": project} if project else {}), **data}))


def test_a_container_that_compose_names() -> None:
    one = service("shop")
    assert "container" not in one.subject
    form = one.forms["container"]
    assert form.glob == "shop?web?*"
    assert set(samples(form, ["*-*"])) == {"shop-web-1", "shop_web_1"}
    several = service("shop", scale=12).forms["container"]
    assert "shop-web-12" in samples(several, ["shop-web-12"])
    assert "shop-web-0" not in samples(several, ["shop-web-0"])
    assert service("shop", deploy={"replicas": 2}).forms["container"].spellings == (
        tuple("shop-web-1"),
        tuple("shop-web-2"),
        tuple("shop_web_1"),
        tuple("shop_web_2"),
    )
    three = service("shop", scale=3).forms["container"]
    assert (three.example, three.advice) == ("shop-web-1", "")
    assert form.advice.startswith("container_name in the service")
    many = service("shop", scale=5000).forms["container"]
    named = [(name, name in samples(many, [name])) for name in ("shop-web-0", "shop-web-4999")]
    assert named == [("shop-web-0", False), ("shop-web-4999", True)]


def test_a_project_that_nobody_names() -> None:
    form = service().forms["container"]
    assert form.glob == ""
    assert form.advice.startswith("container_name in the service")
    for name in ("shop-web-1", "a_b_web_1"):
        assert name in samples(form, [name])
    assert "web" not in samples(form, ["web"])


def test_a_name_in_the_file() -> None:
    assert service(container_name="shop").subject["container"] == "shop"
    form = service(container_name="shop-${STAGE}").forms["container"]
    assert form.glob == "shop-*"


def test_the_services_name_is_not_the_containers() -> None:
    one = service("shop", annotations={f"{PROFILE}/web": "xdp"})
    (doubt,) = one.doubts
    assert doubt.text == (
        f'{PROFILE}/web is for a container called "web", but this service\'s container is called '
        '"shop-web-1" or the like; give the service a container_name'
    )
    (doubt,) = service("shop", scale=2, annotations={f"{PROFILE}/web": "xdp"}).doubts
    assert doubt.text.endswith(f'called "shop-web-1" or the like; use {PROFILE}')
    assert service("shop", scale=int("9" * 4000)).forms["container"].example == "shop-web-1"
    assert service(container_name="web", annotations={f"{PROFILE}/web": "xdp"}).doubts == ()


# ---- names of somebody who means harm

HOSTILE = 'a*"\\\n\x1b[31m?é'


def globs(one: Asker) -> list[str]:
    return [*(form.glob for form in one.forms.values()), *one.globs.values()]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "CronJob", "Other"])
def test_no_pattern_gets_into_a_glob(kind: str) -> None:
    data = yaml.safe_load(manifest(kind))
    data["metadata"]["name"] = HOSTILE
    one = only(yaml.safe_dump(data))
    (glob,) = globs(one)
    assert glob == "a????" + "?[31m" + "??-*"
    assert one.forms["pod"].what.isprintable()


def test_nor_by_other_ways() -> None:
    data = yaml.safe_load(manifest("Pod"))
    data["metadata"] |= {"name": f"{HOSTILE}x7k2p", "generateName": HOSTILE}
    assert globs(only(yaml.safe_dump(data))) == ["a????" + "?[31m" + "??*"]
    service = {"services": {HOSTILE: {"image": "x"}}, "name": HOSTILE}
    (glob,) = globs(only(yaml.safe_dump(service)))
    assert "*" not in glob[:-1]
    assert '"' not in glob


ODD = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)


@given(
    st.sampled_from(["Pod", "Deployment", "StatefulSet", "Job", "CronJob", "Other"]),
    st.dictionaries(st.sampled_from(["name", "generateName", "labels", "ownerReferences"]), ODD),
    st.dictionaries(
        st.sampled_from(["replicas", "completions", "completionMode", "ordinals", "jobTemplate"]),
        ODD,
    ),
    st.sampled_from([None, "podman", "cri-o"]),
)
def test_whatever_stands_there(
    kind: str, metadata: dict[str, object], spec: dict[str, object], engine: str | None
) -> None:
    data = yaml.safe_load(manifest(kind, outer={PROFILE: "xdp"}))
    data["metadata"] = {**data["metadata"], **metadata}
    data["spec"] = {**data["spec"], **spec}
    for one in read(yaml.safe_dump(data).encode(), "x.yaml", engine):
        for form in one.forms.values():
            assert samples(form, [form.glob, "a*"])[0] == form.example


def test_a_name_of_a_megabyte() -> None:
    data = yaml.safe_load(manifest("Deployment"))
    data["metadata"]["name"] = "a" * (1 << 20)
    assert len(only(yaml.safe_dump(data)).forms["pod"].example) == 63

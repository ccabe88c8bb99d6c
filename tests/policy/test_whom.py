"""The match of the rule that a refusal proposes: it holds for the same container next time too."""

from typing import Any

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.policy.decide import holds
from oci_bpf_hook.policy.refusal import advice
from oci_bpf_hook.policy.store.file import load
from oci_bpf_hook.policy.subject import Subject
from tests.support.subjects import subject as asker

ENUMS = kernel.enums(KINDS)
GRANT = Grant(masks={"delegate_maps": 2}, path="/sys/fs/bpf", mode=0o1777)
RANDOM = "loving_curie"
ID = "4fc4ae496875cf11280069ed7b7dbd5d31dcfc3eac4393527f0ee0a2d78b8532"
UID = "0a1b2c3d-0000-4000-8000-0123456789ab"


def proposed(subject: Subject, match: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The match that is proposed if a rule with `match` refused, and all that is said."""
    text = advice(GRANT, subject, ENUMS, match)
    rule = text[text.index("- {name") :].partition("]}}")[0] + "]}}"
    (found,) = load(f"version: 1\nrules:\n{rule}\n".encode(), "p.yaml").rules
    matched: dict[str, Any] = found["match"]
    return matched, text


POD = {"namespace": "mon", "pod": "web-0", "container": "probe"}


@pytest.mark.parametrize(
    ("fields", "decided", "expected"),
    [
        ({"image": "reg/agent:1"}, {"image": ["reg/*"]}, {"image": ["reg/agent:1"]}),
        ({"user": 1000}, {"user": [1000, 1001]}, {"user": [1000]}),
        ({"group": (4, 27, 100)}, {"group": [27, 1000]}, {"group": [27]}),
        (
            {"annotations": {"a.example/sa": "x", "other": "y"}},
            {"annotations": {"a.example/sa": ["x*", "z"]}},
            {"annotations": {"a.example/sa": ["x"]}},
        ),
        ({"cdi": "xdp"}, {"cdi": ["*"]}, {"cdi": ["xdp"]}),
        (
            {**POD, "host_network": True},
            {"host_network": True, "namespace": ["m*"]},
            {key: [value] for key, value in POD.items()} | {"host_network": True},
        ),
        (
            {**POD, "engine": "cri-o", "image": "a:1"},
            {"engine": ["cri-o"], "image": ["a*"]},
            {key: [value] for key, value in POD.items()} | {"engine": ["cri-o"], "image": ["a:1"]},
        ),
    ],
)
def test_what_decided_is_in_it(
    fields: dict[str, Any], decided: dict[str, Any], expected: dict[str, Any]
) -> None:
    """So it is at least as narrow as the rule before which it is put."""
    subject = asker(**fields)
    match, text = proposed(subject, decided)
    assert match == expected
    assert "with a match that only" not in text
    (rule,) = load(b"version: 1\nrules: [{name: r, allow: {}}]", "p").rules
    assert holds({**rule, "match": match}, subject)


def test_nor_is_root() -> None:
    for fields, decided in (({"user": 0}, {"user": [0]}), ({"group": (0,)}, {"group": [0, 5]})):
        text = proposed(asker(**fields), decided)[1]
        assert "with a match that only this container meets, " in text
        match, text = proposed(asker(**fields, container=RANDOM), decided)
        assert match["container"] == [RANDOM]
        assert "if podman made up the name" in text


@pytest.mark.parametrize("key", ["host_network", "host_cgroup", "rootless"])
def test_what_many_containers_share_is_not_enough(key: str) -> None:
    match, text = proposed(asker(**{key: True}), {key: True})
    assert match == {key: True}
    assert "with a match that only this container meets, " in text


def test_a_name_that_podman_makes_up() -> None:
    """What decided is named; if nothing else narrows the rule, it is said what to do."""
    for engine in (None, "podman"):
        narrow = asker(container=RANDOM, engine=engine, user=1000)
        match, text = proposed(narrow, {"user": [1000]})
        assert match == {"user": [1000]}
        assert RANDOM not in text
        match, text = proposed(asker(container=RANDOM, engine=engine), {})
        assert match == {"container": [RANDOM]}
        assert text.endswith(
            f'; if podman made up the name "{RANDOM}", it makes up another one next time: start '
            "the container with --name and match that name"
        )


@pytest.mark.parametrize("name", ["web", "my-app", "systemd-web", "proj_web_1", "Web_App", "a_b2"])
def test_a_name_that_somebody_gave(name: str) -> None:
    match, text = proposed(asker(container=name, engine="podman", user=1000), {"user": [1000]})
    assert match == {"container": [name], "user": [1000]}
    assert "made up" not in text


def test_a_container_of_a_pod_has_a_name_of_its_author() -> None:
    subject = asker(**{**POD, "container": RANDOM})
    assert proposed(subject, {})[0]["container"] == [RANDOM]


def test_an_id() -> None:
    for name in (ID, ID[:12]):
        match, text = proposed(asker(container=name), {})
        assert match == {}
        assert "with a match that only this container meets, " in text
        assert f'"{name}" is the container\'s id, which is another one next time' in text


def test_the_name_that_cri_o_tells_conmon() -> None:
    match, _ = proposed(asker(container=f"k8s_probe_web-0_mon_{UID}_3"), {})
    assert match == {"container": ["k8s_probe_web-0_mon_*"]}


@pytest.mark.parametrize(
    ("pod", "stem"),
    [
        ("web-6d4cf56db6-x7k2p", "web"),
        ("agent-x7k2p", "agent"),
        ("my-agent-x7k2p", "my-agent"),
        ("backup-29012345-x7k2p", "backup"),
        ("web-front-x7k2p", "web-front"),
    ],
)
def test_a_pod_whose_name_may_have_been_made_up(pod: str, stem: str) -> None:
    """The hook can't know for sure, so the name stays, and it is said what to write otherwise."""
    match, text = proposed(asker(**{**POD, "pod": pod}), {})
    assert match["pod"] == [pod]
    assert text.endswith(f'has another name, and the rule needs pod: "{stem}-*"')


@pytest.mark.parametrize("pod", ["web", "web-0", "web-front", "web-12345-a", "x7k2p"])
def test_a_pod_whose_name_was_given(pod: str) -> None:
    match, text = proposed(asker(**{**POD, "pod": pod}), {})
    assert match["pod"] == [pod]
    assert text.endswith("}}")


def test_a_glob_that_is_known() -> None:
    subject = asker(**{**POD, "pod": "web-6d4cf56db6-x7k2p", "globs": {"pod": "web-*"}})
    match, text = proposed(subject, {})
    assert match["pod"] == ["web-*"]
    assert text.endswith("}}")
    # A name that nobody knows yet and that no glob stands for is left out.
    nobody = asker(container="x-web-1", globs={"container": ""})
    assert proposed(nobody, {})[0] == {}


def test_what_a_client_of_the_broker_says_is_not_in_it() -> None:
    claimed = frozenset(["container", "image"])
    subject = asker(user=1000, container=RANDOM, image="a", claimed=claimed)
    match, text = proposed(subject, {"user": [1000]})
    assert match == {"user": [1000]}
    assert text.endswith("}}")


def test_nobody_s_pattern_gets_in_by_what_decided() -> None:
    subject = asker(image='a*"', annotations={"k": "v*\n"})
    match, _ = proposed(subject, {"image": ["a*"], "annotations": {"k": ["v*"]}})
    assert match == {"image": ["a??"], "annotations": {"k": ["v??"]}}

"""What Kubernetes and podman call the pods and containers of each kind of object."""

from typing import Any

import pytest

from oci_bpf_hook.formats import pod_names
from oci_bpf_hook.policy.decide import glob
from oci_bpf_hook.policy.forms import Form, samples

LONG = "a-name-with-exactly-sixty-characters-of-which-some-are-cut-x"


def template(kind: str, name: str = "web", **spec: Any) -> Form:
    found = pod_names.of_template(kind, {"metadata": {"name": name}, "spec": spec})
    assert found
    return found


def can_be(one: Form, name: str) -> bool:
    """Whether `name` is a name of the form: it is, if the glob that only it matches can match."""
    return name in samples(one, [name])


@pytest.mark.parametrize(
    ("kind", "spec", "names", "others"),
    [
        (
            "Deployment",
            {},
            ["web-6d4cf56db6-x7k2p", "web-7bf8c77b5b-2jbkw", "web-9d8f6c5b4-zzzzz"],
            ["web", "web-x7k2p", "web-0", "web-1d4cf56db6-x7k2p", "web-6d4cf56db6-aeiou"],
        ),
        ("ReplicaSet", {}, ["web-x7k2p"], ["web", "web-0", "web-6d4cf56db6-x7k2p"]),
        ("ReplicationController", {}, ["web-x7k2p"], ["web"]),
        ("DaemonSet", {}, ["web-x7k2p"], ["web", "web-ax7k2"]),
        ("StatefulSet", {}, ["web-0"], ["web", "web-1", "web-x7k2p"]),
        ("StatefulSet", {"replicas": 3}, ["web-0", "web-2"], ["web-3"]),
        (
            "StatefulSet",
            {"replicas": 2, "ordinals": {"start": 7}},
            ["web-7", "web-8"],
            ["web-0", "web-9"],
        ),
        ("StatefulSet", {"replicas": 5000}, ["web-0", "web-4999"], ["web-01", "web-50000"]),
        ("StatefulSet", {"replicas": 0}, ["web-0"], ["web"]),
        ("Job", {}, ["web-x7k2p"], ["web", "web-0-x7k2p"]),
        (
            "Job",
            {"completionMode": "Indexed", "completions": 12},
            ["web-0-x7k2p", "web-11-x7k2p"],
            ["web-x7k2p", "web-12-x7k2p"],
        ),
        ("CronJob", {}, ["web-29012345-x7k2p"], ["web-x7k2p", "web-2901234-x7k2p"]),
        (
            "CronJob",
            {"jobTemplate": {"spec": {"completionMode": "Indexed", "completions": 2}}},
            ["web-29012345-1-x7k2p"],
            ["web-29012345-x7k2p"],
        ),
        # Of others only the beginning is taken to be known.
        ("Rollout", {}, ["web-6d4cf56db6-x7k2p", "web-0"], ["web", "other"]),
    ],
)
def test_each_kind(kind: str, spec: dict[str, Any], names: list[str], others: list[str]) -> None:
    one = template(kind, **spec)
    assert [name for name in names if not can_be(one, name)] == []
    assert [name for name in others if can_be(one, name)] == []
    assert one.glob == "web-*"
    assert can_be(one, one.example)


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "Job", "CronJob"])
def test_names_that_are_cut(kind: str) -> None:
    """The API server keeps 58 characters of generateName, and adds five."""
    one = template(kind, LONG)
    assert can_be(one, f"{LONG[:58]}x7k2p")
    assert not can_be(one, f"{LONG}-x7k2p")
    assert one.glob == f"{LONG[:58]}*"
    fits = template("DaemonSet", LONG[:57])
    assert can_be(fits, f"{LONG[:57]}-x7k2p")


def test_a_hash_that_is_cut() -> None:
    one = template("Deployment", LONG[:50])
    assert can_be(one, f"{LONG[:50]}-6d4cf56x7k2p")
    assert can_be(one, f"{LONG[:50]}-6d4cf5-x7k2p")
    assert one.glob == f"{LONG[:50]}-*"


def test_the_index_of_a_job_is_never_cut() -> None:
    one = template("Job", LONG, completionMode="Indexed", completions=11)
    assert can_be(one, f"{LONG[:55]}-0-x7k2p")
    assert can_be(one, f"{LONG[:54]}-10-x7k2p")
    assert glob(one.glob, one.example)


def test_a_generated_name() -> None:
    pod = pod_names.of_template("Pod", {"metadata": {"generateName": "probe-"}})
    assert pod
    assert can_be(pod, "probe-x7k2p")
    assert pod.glob == "probe-*"
    job = pod_names.of_template("Job", {"metadata": {"generateName": "run-"}, "spec": {}})
    assert job
    assert can_be(job, "run-x7k2p-2jbkw")
    assert job.glob == "run-*"
    nothing = pod_names.of_template("Deployment", {"metadata": {}})
    assert nothing
    assert nothing.glob == ""
    assert pod_names.of_template("Pod", {"metadata": {"name": "web"}}) is None


@pytest.mark.parametrize("odd", [-1, 1 << 40, "3", True, None, 2.5])
def test_numbers_that_the_api_server_refuses(odd: object) -> None:
    assert can_be(template("StatefulSet", replicas=odd), "web-0")


def owner(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": "web"}, None),
        ({"name": "web-6d4cf56db6-x7k2p"}, None),
        ({"name": "probe-x7k2p", "generateName": "probe-"}, "probe-*"),
        (
            {
                "name": "web-6d4cf56db6-x7k2p",
                "generateName": "web-6d4cf56db6-",
                "labels": {"pod-template-hash": "6d4cf56db6"},
            },
            "web-*",
        ),
        (
            {
                "name": "web-6d4cf56db6-x7k2p",
                "labels": {"pod-template-hash": "6d4cf56db6"},
                **owner("ReplicaSet", "web-6d4cf56db6"),
            },
            "web-*",
        ),
        # A label alone proves nothing: anybody may set it.
        ({"name": "kube-6d4cf56db6-x", "labels": {"pod-template-hash": "6d4cf56db6"}}, None),
        ({"name": "agent-x7k2p", **owner("DaemonSet", "agent")}, "agent-*"),
        ({"name": "run-3-x7k2p", **owner("Job", "run")}, "run-*"),
        # A StatefulSet's pods keep their names, though they have a generateName.
        ({"name": "db-0", "generateName": "db-", **owner("StatefulSet", "db")}, None),
        ({"name": "db-10000", "generateName": "db-", **owner("StatefulSet", "db")}, None),
        ({"name": "other", "generateName": "web-"}, None),
        ({"name": "web-x7k2p", "ownerReferences": [None, {"kind": "Job"}]}, None),
    ],
)
def test_a_name_that_was_made_up(metadata: dict[str, Any], expected: str | None) -> None:
    assert pod_names.lasting(metadata) == expected


def test_what_a_deployment_has_made() -> None:
    """A ReplicaSet's own name has a hash, which is another one after the next change."""
    made = {"name": "web-6d4cf56db6", **owner("Deployment", "web")}
    one = pod_names.of_template("ReplicaSet", {"metadata": made})
    assert one
    assert one.glob == "web-*"
    assert can_be(one, "web-6d4cf56db6-x7k2p")


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("Pod", {}, ("web-probe",)),
        ("DaemonSet", {}, ("web-pod-probe",)),
        ("Job", {}, ("web-pod-probe",)),
        ("Deployment", {}, ("web-pod-probe", "web-pod-0-probe")),
        (
            "Deployment",
            {"replicas": 2},
            ("web-pod-probe", "web-pod-0-probe", "web-pod-1-probe"),
        ),
        ("StatefulSet", {}, ()),
    ],
)
def test_podmans_names(kind: str, spec: dict[str, Any], expected: tuple[str, ...]) -> None:
    data = {"metadata": {"name": "web"}, "spec": spec}
    assert pod_names.of_podman(kind, data, "probe") == expected
    assert pod_names.of_podman(kind, {"spec": spec}, "probe") == ()

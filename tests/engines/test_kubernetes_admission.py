"""contrib/kubernetes/admission.yaml and its service-account.yaml, on pods and what writes pods."""

from typing import Any

import kubernetes_validate
import pytest

from tests.support.kubernetes import (
    ACCOUNTS,
    ADMISSION,
    ASK,
    RELEASES,
    RULES,
    SERVICE_ACCOUNT,
    admit,
    documents,
)


def a_pod(
    annotations: dict[str, str] | None,
    *,
    namespace: str = "monitoring",
    account: str | None = "bpf-agent",
    users: bool | None = False,
) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "a"}]}
    if account is not None:
        spec["serviceAccountName"] = account
    if users is not None:
        spec["hostUsers"] = users
    metadata: dict[str, Any] = {"name": "a", "namespace": namespace}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(ASK),
        a_pod({**ASK, "other": "1"}),
        a_pod(None, namespace="elsewhere", account=None, users=None),
        a_pod({}, namespace="elsewhere"),
        a_pod({"io.bpffsx/a": "1", "x/io.bpffs.profile": "1"}, namespace="elsewhere", users=True),
    ],
)
def test_pods_that_are_let_in(pod: dict[str, Any]) -> None:
    assert admit(pod) == []


@pytest.mark.parametrize("key", ["io.bpffs.profile", "io.bpffs.delegate_cmds/a", "io.bpffs.typo"])
@pytest.mark.parametrize(
    ("namespace", "account", "named"),
    [
        ("elsewhere", "bpf-agent", "bpf-agent of elsewhere"),
        ("monitoring", "other", "other of monitoring"),
        ("monitoring", None, "default of monitoring"),
        ("monitoring", "bpf-agent/x", "bpf-agent/x of monitoring"),
        ("monitorin", "g/bpf-agent", "g/bpf-agent of monitorin"),
        ("elsewhere", "*", "* of elsewhere"),
    ],
)
def test_pods_of_others(key: str, namespace: str, account: str | None, named: str) -> None:
    (said,) = admit(a_pod({"a": "1", key: "x"}, namespace=namespace, account=account))
    assert said.startswith(f"the service account {named} may not set io.bpffs.* annotations")


@pytest.mark.parametrize("users", [None, True])
def test_pods_without_a_user_namespace(users: bool | None) -> None:
    (said,) = admit(a_pod(ASK, users=users))
    assert "set spec.hostUsers to false" in said


def test_a_whole_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES["variables"][0], "expression", "['monitoring/*']")
    assert admit(a_pod(ASK, account="whoever")) == []
    assert admit(a_pod(ASK, namespace="elsewhere")) != []


def test_updates() -> None:
    """What a pod has had stays; what it hasn't had is asked for anew."""
    had = a_pod(ASK, namespace="elsewhere")
    assert admit(a_pod({**ASK, "a": "1"}, namespace="elsewhere"), had) == []
    assert admit(a_pod({}, namespace="elsewhere"), had) == []
    for bare in (a_pod(None, namespace="elsewhere"), a_pod({"a": "1"}, namespace="elsewhere")):
        assert admit(had, bare) != []
    assert admit(a_pod({"io.bpffs.profile": "xdp"}, namespace="elsewhere"), had) != []
    assert admit(a_pod({**ASK, "io.bpffs.mode": "0700"}, namespace="elsewhere"), had) != []
    assert admit(a_pod(ASK), a_pod(None)) == []


@pytest.mark.parametrize(
    ("account", "said", "fits"),
    [
        ("bpf-agent", "bpf-agent", True),
        (None, "default", True),
        ("bpf-agent", "default", False),
        ("other", "bpf-agent", False),
        ("bpf-agent", "", False),
        (None, "bpf-agent", False),
        ("bpf-agent", "bpf-agent ", False),
        ("bpf-agent", "BPF-agent", False),
    ],
)
def test_a_pod_says_no_other_s_service_account(account: str | None, said: str, fits: bool) -> None:
    pod = a_pod({"bpffs.io/service-account": said}, account=account)
    problems = admit(pod, rules=ACCOUNTS)
    if fits:
        assert problems == []
    else:
        (problem,) = problems
        assert f"has to be {account or 'default'}, which is the service account" in problem


def test_a_pod_that_doesn_t_say_its_service_account() -> None:
    for annotations in (None, {}, ASK):
        assert admit(a_pod(annotations, account="other"), rules=ACCOUNTS) == []


# What writes a pod, or may put annotations on it, and the kind of what is written: of Kubernetes
# 1.30 to 1.37, pkg/registry/core/pod (storage.go, setPodHostAndAnnotations; strategy.go).
WRITES = [
    ("CREATE", "pods", "", "Pod"),
    ("UPDATE", "pods", "", "Pod"),
    ("UPDATE", "pods", "status", "Pod"),
    ("UPDATE", "pods", "ephemeralcontainers", "Pod"),
    ("UPDATE", "pods", "resize", "Pod"),
    ("CREATE", "pods", "binding", "Binding"),
    ("CREATE", "bindings", "", "Binding"),
    # It has annotations of its own, which go nowhere: no harm in refusing them.
    ("CREATE", "pods", "eviction", "Eviction"),
    # And whatever comes next.
    ("UPDATE", "pods", "new", "Pod"),
    ("CREATE", "pods", "new", "New"),
]
POLICIES = {"admission": RULES, "service-account": ACCOUNTS}
OURS = [
    (RULES, {"io.bpffs.profile": "xdp"}),
    (RULES, {"io.bpffs.delegate_cmds/a": "any"}),
    (RULES, {"io.bpffs.typo": ""}),
    (ACCOUNTS, {"bpffs.io/service-account": "default"}),
    (ACCOUNTS, {"bpffs.io/service-account": "bpf-agent"}),
]


def is_matched(rules: dict[str, Any], operation: str, resource: str, subresource: str) -> bool:
    """Whether the API server asks the policy at all (plugin/webhook/predicates/rules)."""
    name = f"{resource}/{subresource}" if subresource else resource
    patterns = {name, f"{resource}/*", f"*/{subresource}", "*/*"} if subresource else {name, "*"}
    return any(
        rule["apiGroups"] == [""]
        and "v1" in rule["apiVersions"]
        and operation in rule["operations"]
        and patterns & {*rule["resources"]}
        for rule in rules["matchConstraints"]["resourceRules"]
    )


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(("operation", "resource", "subresource", "kind"), WRITES)
def test_they_are_asked(
    rules: dict[str, Any], operation: str, resource: str, subresource: str, kind: str
) -> None:
    assert is_matched(rules, operation, resource, subresource)


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(
    ("operation", "resource", "subresource"),
    [
        *(("CONNECT", "pods", one) for one in ("exec", "attach", "portforward", "proxy")),
        *(("UPDATE", one, "") for one in ("nodes", "podtemplates", "services")),
        ("DELETE", "pods", ""),
    ],
)
def test_they_are_not_asked(
    rules: dict[str, Any], operation: str, resource: str, subresource: str
) -> None:
    assert not is_matched(rules, operation, resource, subresource)


def a_binding(
    annotations: dict[str, str] | None, *, namespace: str = "monitoring"
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "a", "namespace": namespace}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "target": {"kind": "Node", "name": "node"}}


def test_a_binding_is_one() -> None:
    for release in RELEASES:
        binding = {"apiVersion": "v1", "kind": "Binding", **a_binding(ASK)}
        kubernetes_validate.validate(binding, release, strict=True)


@pytest.mark.parametrize(("rules", "annotations"), OURS)
@pytest.mark.parametrize("namespace", ["monitoring", "elsewhere"])
@pytest.mark.parametrize("kind", ["Binding", "Eviction"])
def test_none_of_ours_comes_by_a_binding(
    rules: dict[str, Any], annotations: dict[str, str], namespace: str, kind: str
) -> None:
    """The API server merges them into the pod's, behind the back of what looks at pods."""
    for more in ({}, {"a": "1"}):
        binding = a_binding(annotations | more, namespace=namespace)
        (said,) = admit(binding, rules=rules, kind=kind)
        assert "on the pod itself" in said
        assert said.endswith(f"by no {kind}")


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(
    "annotations", [None, {}, {"a": "1"}, {"x/io.bpffs.profile": "1", "io.bpffsx": "1"}]
)
def test_a_binding_with_none_of_ours(
    rules: dict[str, Any], annotations: dict[str, str] | None
) -> None:
    for namespace in ("monitoring", "elsewhere"):
        assert admit(a_binding(annotations, namespace=namespace), rules=rules, kind="Binding") == []


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
def test_a_policy_that_cant_decide_refuses(rules: dict[str, Any]) -> None:
    assert rules["failurePolicy"] == "Fail"
    (_, binding) = documents(ADMISSION if rules is RULES else SERVICE_ACCOUNT)
    assert binding["spec"]["validationActions"] == ["Deny"]

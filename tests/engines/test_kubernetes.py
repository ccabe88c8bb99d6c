"""contrib/kubernetes: Kubernetes' own schemas, the admission rules on pods, and a node for real."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import celpy
import kubernetes_validate
import pytest
import yaml
from celpy.adapter import json_to_cel

from oci_bpf_hook.errors import DONE
from oci_bpf_hook.paths import PINS
from tests.support.command import command
from tests.support.packages import (
    HOOK_JSON,
    LIBEXEC,
    fresh,
    podman_as_installed,
    run,
    source_of,
    written,
)
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT
from tests.support.podman import World
from tests.support.policy import UNCONFINED, in_force

FOLDER = ROOT / "contrib" / "kubernetes"
EXAMPLE = "example-pod.yaml"
ADMISSION, SERVICE_ACCOUNT = "admission.yaml", "service-account.yaml"
MANIFESTS = (
    *("namespace.yaml", "daemonset.yaml", "runtimeclass.yaml", ADMISSION, SERVICE_ACCOUNT),
    EXAMPLE,
)
# The first with ValidatingAdmissionPolicy for good, and the last that the validator has.
RELEASES = ("1.30", "1.37")
IMAGE = "registry.example/oci-bpf-hook"
ASK = {"io.bpffs.profile": "socket-filter"}


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def document(kind: str) -> dict[str, Any]:
    every = (one for name in MANIFESTS for one in documents(name))
    (found,) = (one for one in every if one["kind"] == kind)
    return found


# ---- manifests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_them(name: str, release: str) -> None:
    for one in documents(name):
        kubernetes_validate.validate(one, release, strict=True)


def test_the_validator_does_refuse() -> None:
    pod = document("Pod")
    pod["spec"]["hostUser"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, RELEASES[1], strict=True)


def test_kustomizations_name_what_is_here() -> None:
    (ours,) = documents("kustomization.yaml")
    assert ours["resources"] == [name for name in MANIFESTS if name != EXAMPLE]
    (theirs,) = documents("uninstall/kustomization.yaml")
    assert theirs["resources"] == [".."]
    (image,) = ours["images"]
    assert image["name"] == IMAGE


def test_the_guard_is_a_component_that_kubernetes_takes() -> None:
    """Named in kustomization.yaml it is in uninstall/ as well, which stands on that."""
    for release in RELEASES:
        kubernetes_validate.validate(with_guard(), release, strict=True)
    assert documents("guard/kustomization.yaml")[0]["kind"] == "Component"


def with_guard() -> dict[str, Any]:
    """The DaemonSet as guard/ changes it."""
    daemons = document("DaemonSet")
    (patch,) = documents("guard/kustomization.yaml")[0]["patches"]
    assert patch["target"] == {"kind": "DaemonSet", "name": daemons["metadata"]["name"]}
    for operation in yaml.safe_load(patch["patch"]):
        *above, name = operation["path"].strip("/").split("/")
        place: Any = daemons
        for key in above:
            place = place[int(key)] if isinstance(place, list) else place[key]
        assert (name in place) is (operation["op"] == "replace")
        place[name] = operation["value"]
    return daemons


def test_they_fit_each_other() -> None:
    pod, runtime, daemons = document("Pod"), document("RuntimeClass"), document("DaemonSet")
    assert pod["spec"]["runtimeClassName"] == runtime["metadata"]["name"]
    template = daemons["spec"]["template"]
    assert runtime["scheduling"]["nodeSelector"] == template["spec"]["nodeSelector"]
    assert daemons["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    namespace = document("Namespace")["metadata"]["name"]
    assert daemons["metadata"]["namespace"] == namespace
    for name in (ADMISSION, SERVICE_ACCOUNT):
        policy, binding = documents(name)
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
        assert admit(pod, rules=policy["spec"]) == []


def test_the_hook_takes_the_example() -> None:
    with in_force(UNCONFINED):
        done = command("check", "--file", FOLDER / EXAMPLE)
    assert done.returncode == DONE, done.stderr
    assert "granted by rule" in done.stdout


# ---- admission ---------------------------------------------------------------------------------

RULES = documents(ADMISSION)[0]["spec"]
ACCOUNTS = documents(SERVICE_ACCOUNT)[0]["spec"]


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return program.evaluate({name: json_to_cel(value) for name, value in names.items()})


def admit(
    pod: dict[str, Any],
    old: dict[str, Any] | None = None,
    rules: dict[str, Any] = RULES,
    *,
    kind: str = "Pod",
) -> list[str]:
    """What is said against the pod, or another object, as the API server goes about it."""
    names: dict[str, Any] = {
        "object": pod,
        "oldObject": old,
        "request": {
            "operation": "UPDATE" if old else "CREATE",
            "namespace": pod["metadata"]["namespace"],
            "kind": {"group": "", "version": "v1", "kind": kind},
        },
    }
    if not all(evaluate(one["expression"], names) for one in rules["matchConditions"]):
        return []
    names["variables"] = {
        one["name"]: evaluate(one["expression"], names) for one in rules["variables"]
    }
    return [
        one.get("message") or str(evaluate(one["messageExpression"], names))
        for one in rules["validations"]
        if not evaluate(one["expression"], names)
    ]


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


# ---- a node ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host without the hook; the directory is what written() looks into."""
    directory = tmp_path_factory.mktemp("node")
    with fresh(directory):
        yield directory


@pytest.fixture(scope="module")
def cluster(node: Path) -> Iterator[World]:
    """The node's engine, with the image that Containerfile makes."""
    with podman_as_installed() as world:
        base = "BASE=localhost/oci-bpf-hook-test:latest"
        containerfile = ("--file", str(FOLDER / "Containerfile"), "--tag", IMAGE)
        world.podman("build", "--pull-never", "--build-arg", base, *containerfile, str(ROOT))
        yield world


def visit(
    world: World,
    arguments: list[str],
    *,
    fails: bool = False,
    daemons: dict[str, Any] | None = None,
) -> str:
    """The DaemonSet's init container, with what its manifest gives it."""
    (container,) = (daemons or document("DaemonSet"))["spec"]["template"]["spec"]["initContainers"]
    security = container["securityContext"]
    (mount,) = container["volumeMounts"]
    # A hostPath is mounted with all that is mounted there.
    volume = f"/:{mount['mountPath']}:rbind"
    privileges = ["--privileged"]
    if not security.get("privileged"):
        privileges = [
            *(f"--cap-drop={one}" for one in security["capabilities"]["drop"]),
            *(f"--cap-add={one}" for one in security["capabilities"]["add"]),
            *("--security-opt", "no-new-privileges"),
        ]
    done = world.podman(
        *("run", "--rm", "--pull", "never", "--read-only", "--user", str(security["runAsUser"])),
        *privileges,
        *(f"--env={one['name']}={one['value']}" for one in container.get("env", ())),
        *("--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--volume", volume, IMAGE, *arguments),
        # crun lifts a limit for containers without a user namespace, which not every root may.
        runtime="runc",
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def granted(world: World) -> bool:
    done = world.run("crun", command=["cat", "/proc/mounts"], annotations=ASK)
    assert done.returncode == 0, done.stderr
    return "delegate_progs=socket_filter" in done.stdout


def test_a_node_that_is_visited_twice_and_left(node: Path, cluster: World) -> None:
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    before = written(node)
    lines = visit(cluster, container["args"]).splitlines()
    assert lines[-1] == "install: done"
    assert lines[-2] == f"write {HOOK_JSON} (0644)"
    assert json.loads(HOOK_JSON.read_text())["hook"]["args"][1:] == container["args"][2:]
    assert granted(cluster)
    assert visit(cluster, container["args"]) == "install: done\n"
    (patch,) = documents("uninstall/kustomization.yaml")[0]["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert operation["path"] == "/spec/template/spec/initContainers/0/args"
    lines = visit(cluster, operation["value"]).splitlines()
    assert lines[0] == f"remove {HOOK_JSON}"
    assert lines[-1] == "uninstall: done"
    assert not granted(cluster)
    assert visit(cluster, operation["value"]) == "uninstall: done\n"
    assert not LIBEXEC.exists()
    assert {path for path in written(node) - before if "/log/" not in path} == set()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_a_node_whose_kernel_can_t_have_the_guard(node: Path, cluster: World) -> None:
    """As this one; the tests in virtual machines turn it on.  What is pinned is the node's."""
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    with bpffs() as place:
        said = visit(cluster, container["args"], fails=True, daemons=with_guard())
        assert "the guard can't be loaded, load: Operation not permitted" in said
        assert HOOK_JSON.exists()
        assert [path.name for path in place.iterdir() if "." not in path.name] == []
        pin()
        visit(cluster, ["uninstall", "/node", "--force"], daemons=with_guard())
        assert not os.path.exists(PINS)
    assert not LIBEXEC.exists()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_an_image_without_the_guard_isn_t_built(cluster: World, tmp_path: Path) -> None:
    tree = source_of("1.0.0", tmp_path)
    for path in tree.rglob("guard.*.o"):
        path.unlink()
    containerfile = tree / "contrib" / "kubernetes" / "Containerfile"
    done = cluster.podman(
        *("build", "--pull-never", "--build-arg", "BASE=localhost/oci-bpf-hook-test:latest"),
        *("--file", str(containerfile), "--tag", "localhost/without-the-guard", str(tree)),
        check=False,
    )
    assert done.returncode != 0
    assert "guard.bpfel.o" in done.stderr


def test_a_node_that_cant_be_written(node: Path, cluster: World) -> None:
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    run("mount", "--bind", "/usr", "/usr")
    try:
        run("mount", "-o", "remount,bind,ro", "/usr")
        said = visit(cluster, container["args"], fails=True)
    finally:
        run("umount", "--lazy", "/usr")
    assert "Read-only file system" in said
    assert not LIBEXEC.exists()
    assert not HOOK_JSON.exists()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_a_node_without_python(tmp_path: Path) -> None:
    done = run("sh", "-c", f"'{FOLDER}/node' install '{tmp_path}' 2>&1 || true")
    assert "this node has no /usr/bin/python3, 3.11 or later" in done
    assert list(tmp_path.iterdir()) == []

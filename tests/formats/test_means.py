"""What a container lacks to use what it asks for: the same in each format that can say it."""

from typing import Any

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.formats.containers import read
from oci_bpf_hook.formats.means import Lack, Means, Mount, lacks, means, misplaced, taking, volume
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.text.places import Spot
from tests.support.containers import FORMATS, Write, config, pod, quadlet

ENUMS = table().enums(KINDS)
HERE = Spot(line=1, column=1)
ASK = {"io.bpffs.profile": "xdp"}
XDP = ("delegate_progs", "xdp")
DEVMAP = ("delegate_maps", "devmap")
KPROBE = ("delegate_progs", "kprobe")
HASH = ("delegate_maps", "hash")
VARIABLE = "LIBBPF_BPF_TOKEN_PATH"


def takes(*names: tuple[str, str]) -> dict[str, list[str]]:
    found: dict[str, int] = {}
    for option, name in names:
        found[option] = found.get(option, 0) | 1 << ENUMS[option].values[name]
    return taking(found, ENUMS)


def found(text: str, name: str) -> Means:
    (one,) = read(text.encode(), name)
    assert one.means
    return one.means


def codes(given: Means, *names: tuple[str, str], engine: str | None = None) -> list[str]:
    return [one.code for one in lacks(given, engine, takes(*names))]


each = pytest.mark.parametrize(("name", "write"), FORMATS.values(), ids=FORMATS)


@each
@pytest.mark.parametrize(
    ("capabilities", "granted", "expected"),
    [
        ([], HASH, ["cap-bpf"]),
        (["BPF"], HASH, []),
        ([], XDP, ["cap-bpf", "cap-net-admin"]),
        (["BPF"], XDP, ["cap-net-admin"]),
        (["BPF"], DEVMAP, ["cap-net-admin"]),
        (["BPF"], KPROBE, ["cap-perfmon"]),
        (["NET_ADMIN"], XDP, ["cap-bpf"]),
        (["BPF", "NET_ADMIN"], XDP, []),
        (["BPF", "PERFMON"], KPROBE, []),
        # It stands in for the others, but not for CAP_BPF when a token is made.
        (["BPF", "SYS_ADMIN"], XDP, []),
        (["SYS_ADMIN"], XDP, ["cap-bpf"]),
    ],
)
def test_capabilities(
    name: str, write: Write, capabilities: list[str], granted: tuple[str, str], expected: list[str]
) -> None:
    assert codes(found(write(ASK, capabilities=capabilities), name), granted) == expected


@each
def test_both_at_once(name: str, write: Write) -> None:
    given = found(write(ASK, capabilities=["BPF"]), name)
    first, second = lacks(given, None, takes(XDP, KPROBE, DEVMAP))
    assert first.reason.startswith("xdp, devmap: the kernel makes these only with CAP_NET_ADMIN ")
    assert first.fix == "add the capability NET_ADMIN"
    assert second.reason.startswith("kprobe: the kernel makes these only with CAP_PERFMON ")


@pytest.mark.parametrize("kind", ["pod", "compose", "quadlet"])
def test_all_capabilities(kind: str) -> None:
    name, write = FORMATS[kind]
    assert codes(found(write(ASK, privileged=True), name), XDP, KPROBE) == []
    assert codes(found(write(ASK, capabilities=["ALL"]), name), XDP, KPROBE) == []
    dropped = ["NET_ADMIN", "SYS_ADMIN"]
    assert codes(found(write(ASK, privileged=True, dropped=dropped), name), XDP) != []
    given = found(write(ASK, capabilities=["ALL"], dropped=dropped), name)
    assert codes(given, XDP, KPROBE) == ["cap-net-admin"]
    # What is added by its name stays, whatever else is dropped.
    given = found(write(ASK, capabilities=["BPF"], dropped=["ALL"]), name)
    assert codes(given, HASH) == []


# ---- another user than root


@pytest.mark.parametrize(
    ("kind", "engine", "expected"),
    [
        ("quadlet", None, []),
        ("compose", None, ["ambient"]),
        ("compose", "docker", ["ambient"]),
        ("compose", "podman", []),
        ("pod", None, ["ambient"]),
        ("pod", "cri-o", ["ambient"]),
        ("pod", "containerd", ["ambient"]),
        ("pod", "podman", []),
    ],
)
def test_another_user(kind: str, engine: str | None, expected: list[str]) -> None:
    """podman's part is tried in tests/engines/test_users_podman.py."""
    name, write = FORMATS[kind]
    given = found(write(ASK, capabilities=["BPF", "NET_ADMIN"], user=1000), name)
    assert codes(given, XDP, engine=engine) == expected
    given = found(write(ASK, capabilities=["BPF", "NET_ADMIN"], user=0), name)
    assert codes(given, XDP, engine=engine) == []


def test_podmans_privileged_is_roots_alone() -> None:
    given = found(quadlet(ASK, privileged=True, user=1000), "c.container")
    assert codes(given, HASH) == ["cap-bpf"]
    given = found(quadlet(ASK, capabilities=["all"], user=1000), "c.container")
    assert codes(given, XDP, KPROBE) == []


def test_the_sets_of_a_configuration() -> None:
    def lacking(*ambient: str) -> list[Lack]:
        text = config(ASK, capabilities=["BPF", "NET_ADMIN"], user=7, ambient=ambient)
        return list(lacks(found(text, "config.json"), "podman", takes(XDP)))

    (none,) = lacking()
    assert none.code == "ambient"
    assert "where CAP_BPF, CAP_NET_ADMIN isn't" in none.reason
    (one,) = lacking("BPF")
    assert "where CAP_NET_ADMIN isn't" in one.reason
    assert lacking("BPF", "NET_ADMIN") == []


@pytest.mark.parametrize(
    ("pod_level", "container_level", "expected"),
    [
        ({"runAsNonRoot": True}, {}, "of its image, which isn't root"),
        ({}, {"runAsNonRoot": True}, "of its image, which isn't root"),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, None),
        ({"runAsNonRoot": True, "runAsUser": 7}, {}, "7"),
        ({"runAsUser": 7}, {"runAsUser": 0}, None),
        ({"runAsUser": 0}, {"runAsUser": 8}, "8"),
        ({"runAsNonRoot": False}, {}, None),
        ({}, {}, None),
    ],
)
def test_run_as_non_root(
    pod_level: dict[str, Any], container_level: dict[str, Any], expected: str | None
) -> None:
    security = {"capabilities": {"add": ["BPF"]}, **container_level}
    spec = {
        "securityContext": pod_level,
        "containers": [{"name": "c", "securityContext": security}],
    }
    given = found(pod(ASK, spec=spec), "pod.yaml")
    lacking = list(lacks(given, None, takes(HASH)))
    if expected is None:
        assert lacking == []
    else:
        (one,) = lacking
        assert one.code == "ambient"
        assert one.reason.startswith(f"it runs as the user {expected}")


# ---- libbpf's variable


def misplaced_codes(given: Means, path: str) -> list[str]:
    return [one.code for one in misplaced(given, path, HERE)]


@each
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("/sys/fs/bpf", None, []),
        ("/run/bpf", None, ["token-path"]),
        ("/run/bpf", "/run/bpf", []),
        ("/run/bpf", "/run/bpf/", []),
        ("/run/bpf", "/run/bpffs", ["token-path"]),
        ("/sys/fs/bpf", "/run/bpf", ["token-path"]),
        ("/sys/fs/bpf", "", ["token-path"]),
    ],
)
def test_the_variable(
    name: str, write: Write, path: str, value: str | None, expected: list[str]
) -> None:
    environment = {"A": "b"} | ({} if value is None else {VARIABLE: value})
    given = found(write(ASK, environment=environment), name)
    assert misplaced_codes(given, path) == expected
    for one in misplaced(given, path, HERE):
        assert one.fix == f"set {VARIABLE}={path} in the container's environment"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (quadlet(ASK) + "EnvironmentFile=/etc/agent.env\n", "c.container"),
        (quadlet(ASK) + "PodmanArgs=--env-file /etc/agent.env\n", "c.container"),
        (quadlet(ASK) + f"PodmanArgs=-e {VARIABLE}=/run/bpf\n", "c.container"),
        (quadlet(ASK) + f"Environment={VARIABLE}=/run/bpf A=b\n", "c.container"),
        (quadlet(ASK) + f"PodmanArgs=--env {VARIABLE}\n", "c.container"),
        (quadlet(ASK) + "AddDevice=bpffs.io/profile=xdp\n", "c.container"),
        ("services: {c: {env_file: x}}", "compose.yaml"),
        ("services: {c: {devices: [bpffs.io/profile=xdp]}}", "compose.yaml"),
        (f"services: {{c: {{environment: [A=b, {VARIABLE}=/run/bpf]}}}}", "compose.yaml"),
        (f"services: {{c: {{environment: [{VARIABLE}]}}}}", "compose.yaml"),
        (pod(ASK).replace("    name: c\n", "    name: c\n    envFrom: []\n"), "pod.yaml"),
        (
            pod(ASK).replace("env: []", f"env: [{{name: {VARIABLE}, valueFrom: {{}}}}]"),
            "pod.yaml",
        ),
    ],
)
def test_an_environment_that_is_elsewhere(text: str, name: str) -> None:
    assert misplaced_codes(found(text, name), "/run/bpf") == []


# ---- volumes


@each
@pytest.mark.parametrize(
    ("volumes", "path", "hidden"),
    [
        ({"/sys/fs/bpf": "/sys/fs/bpf"}, "/sys/fs/bpf", True),
        ({"/sys/fs/bpf/": "/run/other"}, "/sys/fs/bpf", True),
        ({"/sys/fs/bpf/tc": "/sys/fs/bpf/tc"}, "/sys/fs/bpf", True),
        ({"/sys/fs/bpf": "/sys/fs/bpf"}, "/run/bpf", False),
        ({"/sys/fs/bpffs": "/sys/fs/bpf"}, "/sys/fs/bpf", False),
        ({"/run": "/run"}, "/run/bpf", False),
        ({}, "/sys/fs/bpf", False),
    ],
)
def test_a_volume_at_the_target(
    name: str, write: Write, volumes: dict[str, str], path: str, hidden: bool
) -> None:
    given = found(write(ASK, environment={VARIABLE: path}, volumes=volumes), name)
    assert misplaced_codes(given, path) == (["hidden-volume"] if hidden else [])


@pytest.mark.parametrize("kind", ["pod", "compose", "quadlet"])
def test_a_volume_around_the_hosts_bpffs(kind: str) -> None:
    name, write = FORMATS[kind]
    for volumes, path, hidden in (
        ({"/sys": "/sys"}, "/sys/fs/bpf", True),
        ({"/host": "/"}, "/host/sys/fs/bpf", True),
        ({"/host": "/"}, "/host/bpf", False),
        ({"/sys": "/run/sys"}, "/sys/fs/bpf", False),
    ):
        given = found(write(ASK, environment={VARIABLE: path}, volumes=volumes), name)
        assert misplaced_codes(given, path) == (["hidden-volume"] if hidden else []), volumes


def test_engines_bind_the_hosts_sys() -> None:
    """Into each container with the host's network; nobody has asked for that."""
    given = found(config(ASK, volumes={"/sys": "/sys"}), "config.json")
    assert misplaced_codes(given, "/sys/fs/bpf") == []


@pytest.mark.parametrize(
    ("text", "name", "hidden"),
    [
        (quadlet(ASK) + "Mount=type=bind,src=/x,dst=/sys/fs/bpf\n", "c.container", True),
        (quadlet(ASK) + "Mount=type=tmpfs,destination=/sys/fs/bpf\n", "c.container", False),
        (quadlet(ASK) + "Mount=\n", "c.container", False),
        (quadlet(ASK) + "PodmanArgs=-v pins:/sys/fs/bpf\n", "c.container", True),
        (quadlet(ASK) + "Tmpfs=/sys/fs/bpf\n", "c.container", False),
        (
            "services: {c: {volumes: [{type: bind, source: /x, target: /sys/fs/bpf}]}}",
            "compose.yaml",
            True,
        ),
        (
            "services: {c: {volumes: [{type: tmpfs, target: /sys/fs/bpf}, 7, [], {}]}}",
            "compose.yaml",
            False,
        ),
    ],
)
def test_other_ways_to_write_a_volume(text: str, name: str, hidden: bool) -> None:
    assert misplaced_codes(found(text, name), "/sys/fs/bpf") == (["hidden-volume"] * hidden)


@pytest.mark.parametrize(
    ("text", "source", "path", "shared"),
    [
        ("/a:/b:ro,z", "/a", "/b", False),
        ("/a:/b:rw,rshared", "/a", "/b", True),
        ("/a:/b:shared", "/a", "/b", True),
        ("name:/b", None, "/b", False),
        ("/b", None, "/b", False),
    ],
)
def test_volumes_of_podman_and_compose(
    text: str, source: str | None, path: str, shared: bool
) -> None:
    assert volume(text, HERE) == Mount(path=path, source=source, shared=shared, spot=HERE)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (quadlet(ASK) + "Volume=/run/bpf:/sys/fs/bpf:rshared\n", "c.container"),
        (
            quadlet(ASK) + "Mount=type=bind,src=/run,dst=/sys/fs,bind-propagation=shared\n",
            "c.container",
        ),
        ("services: {c: {volumes: ['/run/bpf:/sys/fs/bpf:rw,rshared']}}", "compose.yaml"),
        (
            "services: {c: {volumes: [{source: /, target: /sys, bind: {propagation: rshared}}]}}",
            "compose.yaml",
        ),
        (
            pod(ASK, volumes={"/sys/fs/bpf": "/sys/fs/bpf"}).replace(
                "mountPath:", "mountPropagation: Bidirectional\n      mountPath:"
            ),
            "pod.yaml",
        ),
        (
            config(ASK, volumes={"/sys/fs/bpf": "/run/bpf"}).replace('"ro"', '"rshared"'),
            "config.json",
        ),
    ],
)
def test_a_volume_that_is_shared_with_the_host(text: str, name: str) -> None:
    """The hook refuses it under crun, as tests/engines/test_podman.py has it."""
    given = found(text, name)
    assert misplaced_codes(given, "/sys/fs/bpf") == ["shared-volume"]
    assert "shared-volume" not in misplaced_codes(given, "/run/elsewhere")


# ---- Kubernetes and its engines


@pytest.mark.parametrize("key", ["io.kubernetes.cri-o.userns-mode", "userns-mode.crio.io"])
@pytest.mark.parametrize("mode", ["auto", "auto:size=65536", "private:uidmapping=0:1000000:65536"])
def test_cri_os_annotation(key: str, mode: str) -> None:
    text = pod({**ASK, key: mode}, capabilities=["BPF"], spec={"hostUsers": None})
    (one,) = read(text.encode(), "pod.yaml")
    assert one.means
    assert one.lacks == ()
    assert codes(one.means, HASH, engine="cri-o") == []
    for engine in (None, "containerd"):
        (lack,) = lacks(one.means, engine, takes(HASH))
        assert lack.code == "user-namespace"
        assert lack.spot
        assert key in text.splitlines()[lack.spot.line - 1]


@pytest.mark.parametrize("mode", ["", "host", "automatic"])
def test_what_is_no_mode_of_cri_os(mode: str) -> None:
    annotations = {**ASK, "io.kubernetes.cri-o.userns-mode": mode}
    (one,) = read(pod(annotations, spec={"hostUsers": None}).encode(), "pod.yaml")
    (fault,) = one.lacks
    assert "nothing gives this pod a user namespace" in fault.text


def test_with_both_it_has_one_anywhere() -> None:
    annotations = {**ASK, "io.kubernetes.cri-o.userns-mode": "auto"}
    assert codes(found(pod(annotations, capabilities=["BPF"]), "pod.yaml"), HASH) == []


def test_defaults() -> None:
    assert codes(means(spot=HERE), HASH) == ["cap-bpf"]

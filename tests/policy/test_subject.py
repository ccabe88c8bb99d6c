"""Who asks, by each way of finding it out, and who says so."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from oci_bpf_hook.errors import USAGE, HookError
from oci_bpf_hook.policy.decide import holds
from oci_bpf_hook.policy.origin import (
    ADMINISTRATOR,
    ENGINE,
    KERNEL,
    OF_USERS,
    REQUESTER,
    origin,
    set_by,
)
from oci_bpf_hook.policy.subject import CLAIMS, ENGINES, Subject, identify, of_container
from oci_bpf_hook.policy.subjects import (
    claims,
    of_description,
    of_peer,
    of_recording,
    of_running,
)
from tests.support.places import ROOT

STATES = ROOT / "tests" / "data" / "states"
ALICE = 1000
EVERYTHING = ("container", "group", "host_cgroup", "host_network")
KUBERNETES = {"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "monitoring"}


def annotations(name: str) -> dict[str, str]:
    state = json.loads((STATES / name).read_text())
    found: dict[str, str] = state["annotations"]
    return found


class Box:
    """A container with namespaces of its own, of which what is looked at is noted."""

    def __init__(self, owner: int = 0) -> None:
        self._owner = owner
        self.looks: list[str] = []

    def owner(self) -> int:
        return self._owner

    def has_host_network(self) -> bool:
        self.looks.append("host_network")
        return False

    def sees_host_cgroups(self, root: str | None) -> bool:
        self.looks.append(f"host_cgroup of {root}")
        return False

    def shared(self) -> tuple[bool, bool]:
        return self.has_host_network(), self.sees_host_cgroups("/")


def never() -> Any:
    raise AssertionError("nobody was to look")


def groups(user: int) -> list[int]:
    return [user, 27]


def at_hook(
    annotations: Mapping[str, str],
    *,
    engine: str | None = None,
    box: Box | None = None,
    uses: tuple[str, ...] = (),
    device: str | None = None,
    find_name: Callable[[], str | None] = never,
) -> Subject:
    return of_container(
        annotations,
        box or Box(),
        "/rootfs",
        engine=engine,
        uses=uses,
        caller=(ALICE, 7),
        device=device,
        find_name=find_name,
    )


def at_broker(user: int, uses: tuple[str, ...], shared: Callable[[], tuple[bool, bool]]) -> Subject:
    told = {"pod": "web-0", "container": None, "user": "0"}
    claimed = {key: value for key, value in told.items() if value is not None}
    return of_peer(claimed, user, engine="podman", uses=uses, groups=groups, shared=shared)


def of_one_that_runs(user: int, *, vouched: bool, engine: str | None = "lxc") -> Subject:
    return of_running(
        {"container": "web", "image": "app"},
        user,
        engine=engine,
        vouched=vouched,
        default="cri-o",
        groups=groups,
        shared=lambda: (False, False),
    )


# ---------------------------------------------------------------- one constructor a source


def test_of_a_container_at_the_hook() -> None:
    box = Box(owner=0)
    found = at_hook(KUBERNETES, engine="cri-o", box=box, uses=EVERYTHING)
    assert (found.namespace, found.pod, found.container) == ("monitoring", "web-0", None)
    assert (found.engine, found.cdi, found.rootless, found.claimed) == (
        *("cri-o", None, False),
        frozenset(),
    )
    # root's namespace, made for whoever called root's engine.
    assert (found.user, found.group) == (ALICE, (7,))
    assert found.annotations is KUBERNETES
    assert (found.host_network, found.host_cgroup) == (False, False)
    assert box.looks == ["host_network", "host_cgroup of /rootfs"]
    assert at_hook({}, box=Box(owner=5)).user == 5


def test_at_the_hook_only_what_rules_are_about_is_looked_at() -> None:
    box = Box()
    found = at_hook({}, box=box)
    assert (found.host_network, found.host_cgroup, box.looks) == (None, None, [])
    assert not {"host_network", "host_cgroup", "cdi"} & found.known().keys()


@pytest.mark.parametrize(
    ("engine", "uses", "name"),
    [
        (None, ("container",), "web"),
        ("podman", ("container",), "web"),
        ("docker", ("container",), None),
        ("podman", (), None),
    ],
)
def test_podman_s_name_is_looked_for_where_a_rule_is_about_it(
    engine: str | None, uses: tuple[str, ...], name: str | None
) -> None:
    found = at_hook({}, engine=engine, uses=uses, find_name=lambda: "web")
    assert found.container == name
    # A refusal always has it.
    assert found.named().container == "web"


def test_what_a_name_is_found_for_changes_nothing_else() -> None:
    found = at_hook(KUBERNETES, engine="podman", device="xdp", find_name=lambda: "web")
    named = found.named()
    assert named.known() == {**found.known(), "container": "web"}
    assert named.named() is named


def test_an_engine_that_there_isn_t() -> None:
    with pytest.raises(HookError, match='--engine "lxd" is not one of cri-o') as refused:
        at_hook({}, engine="lxd")
    assert refused.value.code == USAGE


def test_of_a_device_at_the_hook() -> None:
    assert at_hook({}, device="xdp").known()["cdi"] == "xdp"


def test_of_a_broker_s_peer() -> None:
    box = Box()
    found = at_broker(0, EVERYTHING, box.shared)
    assert (found.user, found.group, found.rootless) == (0, (0, 27), False)
    assert (found.host_network, found.host_cgroup) == (False, False)
    assert (found.pod, found.container, found.engine) == ("web-0", None, "podman")
    assert found.annotations == {}
    assert found.claimed == {*CLAIMS, "annotations", "engine"}


def test_of_a_broker_s_peer_only_what_rules_are_about_is_looked_at() -> None:
    found = at_broker(0, (), never)
    assert (found.group, found.host_network, found.host_cgroup) == ((), None, None)


def test_of_a_running_container() -> None:
    found = of_one_that_runs(0, vouched=False, engine="podman")
    assert (found.container, found.image, found.engine) == ("web", "app", "podman")
    assert (found.user, found.group, found.rootless) == (0, (0, 27), False)
    assert (found.host_network, found.host_cgroup) == (False, False)
    # What isn't an engine that a rule knows is the policy's.
    assert of_one_that_runs(0, vouched=False).engine == "cri-o"


def test_of_a_user_s_running_container_nothing_is_believed_but_what_root_s_engine_tells() -> None:
    found = of_one_that_runs(ALICE, vouched=False, engine="podman")
    assert (found.container, found.image, found.engine) == (None, None, "cri-o")
    told = of_one_that_runs(ALICE, vouched=True, engine="podman")
    assert (told.container, told.engine, told.user) == ("web", "podman", ALICE)


def test_of_a_recording() -> None:
    box = Box()
    found = of_recording(ALICE, groups(ALICE), box)
    assert (found.user, found.group, found.rootless) == (ALICE, (ALICE, 27), False)
    assert (found.engine, found.container) == (None, None)
    assert (found.host_network, found.host_cgroup) == (False, False)
    assert box.looks == ["host_network", "host_cgroup of /"]


def test_of_a_description() -> None:
    found = of_description(KUBERNETES, "cri-o")
    assert (found.user, found.group, found.rootless) == (0, (0,), False)
    assert (found.host_network, found.host_cgroup, found.cdi) == (False, False, None)
    assert (found.pod, found.annotations, found.by_broker()) == ("web-0", KUBERNETES, False)
    more = ({"pod": "a", "user": 1}, {"user": 2, "cdi": "xdp", "host_network": True})
    found = of_description(KUBERNETES, "cri-o", *more)
    assert (found.pod, found.user, found.cdi) == ("a", 2, "xdp")
    assert (found.host_network, found.host_cgroup) == (True, False)


@pytest.mark.parametrize("inside", [True, False])
def test_of_a_description_for_the_broker(*, inside: bool) -> None:
    """It takes nobody's word for a name, nor that a device asks."""
    more = {"cdi": "xdp"} if inside else {"cdi": "xdp", "rootless": True}
    found = of_description(KUBERNETES, "cri-o", more, inside=inside)
    assert (found.cdi, found.annotations, found.pod) == (None, {}, "web-0")
    assert found.by_broker()
    assert set_by(found, "pod") == REQUESTER
    assert set_by(of_description(KUBERNETES, "cri-o"), "pod") == ENGINE
    rule = {"match": {"pod": ["web-0"]}, "deny": None}
    assert not holds(rule, found)
    assert holds({**rule, "deny": "no"}, found)


def test_what_the_hook_tells_the_broker() -> None:
    assert claims(KUBERNETES, lambda: "web") == {
        "pod": "web-0",
        "namespace": "monitoring",
        "image": None,
        "container": "web",
    }
    named = KUBERNETES | {"io.kubernetes.container.name": "probe"}
    assert claims(named, never)["container"] == "probe"


# ------------------------------------------------------------------------ rootless, once


USERS = {
    "peer": lambda: at_broker(ALICE, (), never),
    "peer, looked at": lambda: at_broker(ALICE, EVERYTHING, never),
    "running": lambda: of_running(
        {}, ALICE, engine=None, vouched=False, default=None, groups=groups, shared=never
    ),
    "description": lambda: of_description(
        {}, None, {"rootless": True, "host_network": False, "host_cgroup": False}
    ),
}


@pytest.mark.parametrize("made", USERS.values(), ids=USERS)
def test_a_user_shares_all_with_the_host(made: Callable[[], Subject]) -> None:
    """A user goes in and out of namespaces with a token in hand, so that nobody needs to look."""
    found = made()
    assert [getattr(found, attribute) for attribute in OF_USERS] == [True, True, True]


# ---------------------------------------------------------------------- who says what


def test_origins() -> None:
    for engine in (*ENGINES, None):
        assert origin("engine", engine) == ADMINISTRATOR
        for attribute in ("user", "group", "rootless", "host_network", "host_cgroup"):
            assert origin(attribute, engine) == KERNEL
        assert origin("annotations", engine) == REQUESTER
    assert origin("namespace", "cri-o") == ENGINE
    assert origin("namespace", "containerd") == ENGINE
    assert origin("namespace", "podman") == REQUESTER
    assert origin("namespace", None) == REQUESTER
    assert origin("container", "podman") == ENGINE
    assert origin("image", "podman") == REQUESTER


def test_a_hostile_pod_under_cri_o() -> None:
    """Its author set SPOOF for everything that might be believed."""
    hostile = annotations("cri-o-1.37-crun/createRuntime.hostile-pod.state.json")
    assert "SPOOF" in hostile.values()
    found = identify(hostile, "cri-o")
    assert (found["namespace"], found["pod"]) == ("monitoring", "web-0")
    assert found["container"] == "probe"
    assert found["image"] == hostile["io.kubernetes.cri-o.ImageName"]
    assert found["image"] not in (None, "SPOOF")


def test_containerd() -> None:
    found = identify(annotations("containerd-2.4-nri-crun/createRuntime.state.json"), "containerd")
    assert (found["namespace"], found["pod"]) == ("monitoring", "web-0")
    assert (found["container"], found["image"]) == ("probe", "localhost/pause:latest")


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_kubernetes_annotations_under_another_engine(engine: str) -> None:
    """podman run --annotation io.kubernetes.pod.namespace=monitoring: nobody believes it."""
    forged = annotations("cri-o-1.37-crun/createRuntime.state.json")
    forged |= annotations("containerd-2.4-cdi-crun/createRuntime.state.json")
    found = identify(forged | {"io.container.manager": "cri-o"}, engine)
    for attribute in ("namespace", "pod", "image", "container"):
        assert found[attribute] is None
    assert at_hook(forged, engine=engine).engine == engine

"""KEY/NAME: a key for one container of several, and how the container's name is found."""

import pytest

from oci_bpf_hook.delegation.annotations import PREFIX, Request, container_name, parse
from tests.support.requests import CONTAINERD, CRI_O, io, nobody, problem, request, understand


@pytest.mark.parametrize(
    "names", [{CRI_O: "web"}, {CONTAINERD: "web"}], ids=["cri-o", "containerd"]
)
def test_a_name_from_the_annotations(names: dict[str, str]) -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}delegate_cmds/db": "any"}
    assert request(annotations | names).lists == {"delegate_cmds": ("prog_load",)}
    assert container_name(names) == "web"


def test_a_name_from_the_engine() -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}delegate_maps/web": "hash"}
    calls: list[int] = []

    def engine() -> str | None:
        calls.append(1)
        return "web"

    assert set(request(annotations, engine).lists) == {"delegate_cmds", "delegate_maps"}
    assert len(calls) == 1
    assert understand(annotations, lambda: "db") is None


def test_the_engine_is_asked_only_where_it_must_be() -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load"}
    assert request(annotations | {CRI_O: "web"}, nobody)
    assert request(io(delegate_cmds="any"), nobody)
    with pytest.raises(AssertionError):
        parse(annotations, nobody)


def test_cri_os_name_comes_before_containerds() -> None:
    # Each engine sets its own key itself; a pod's author can add the other's.
    assert container_name({CONTAINERD: "b", CRI_O: "a"}) == "a"
    assert container_name({"io.kubernetes.cri-o.ContainerName": "SPOOF"}) is None


def test_the_name_wins_over_all_whatever_the_order() -> None:
    plain = io(delegate_cmds="any", mode="700", path="/a", on_unknown="drop")
    named = {
        f"{PREFIX}delegate_cmds/web": "prog_load",
        f"{PREFIX}mode/web": "755",
        f"{PREFIX}path/web": "/b",
        f"{PREFIX}on_unknown/web": "fail",
    }
    wanted = Request(
        lists={"delegate_cmds": ("prog_load",)},
        path="/b",
        mode=0o755,
        drop_unknown=False,
        shim=False,
        profiles=(),
        record="",
    )
    assert request(plain | named, lambda: "web") == wanted
    assert request(named | plain, lambda: "web") == wanted
    # The others of the pod keep what is for all.
    assert request(plain | named, lambda: "db") == request(plain)


def test_one_container_can_be_left_out() -> None:
    annotations = io(delegate_cmds="any", mode="700") | {f"{PREFIX}delegate_cmds/db": ""}
    assert understand(annotations, lambda: "db") is None
    assert request(annotations, lambda: "web").lists == {"delegate_cmds": ("any",)}


@pytest.mark.parametrize("name", ["we", "web2", "WEB", "web/", "web/x", " web"])
def test_another_containers_annotations_are_not_ours(name: str) -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "!!", f"{PREFIX}path/web": "no path"}
    assert understand(annotations, lambda: name) is None


def test_a_name_may_have_a_slash() -> None:
    assert request({f"{PREFIX}delegate_cmds/a/b": "any"}, lambda: "a/b")


@pytest.mark.parametrize("key", ["path", "mode", "on_unknown"])
def test_settings_for_all_dont_stop_a_container_that_asks_for_nothing(key: str) -> None:
    text = {"path": "/run/bpf", "mode": "700", "on_unknown": "drop"}[key]
    annotations = {PREFIX + key: text, f"{PREFIX}delegate_cmds/web": "any"}
    assert request(annotations, lambda: "web").lists
    assert understand(annotations, lambda: "sidecar") is None


def test_a_misspelt_key_of_another_container_is_an_error_too() -> None:
    annotations = {f"{PREFIX}delegate_cmd/web": "any"}
    assert 'did you mean "io.bpffs.delegate_cmds/web"?' in problem(annotations, lambda: "db")


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_name_to_compare_with_it_is_an_error(name: str | None) -> None:
    found = problem(
        io(delegate_cmds="any")
        | {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}path/web": "/b"},
        lambda: name,
    )
    assert "this engine doesn't tell the container's name" in found
    assert 'leave out "/web"' in found
    assert "the container's name" in problem({f"{PREFIX}delegate_cmds/web": "any", CRI_O: ""})


def test_a_slash_without_a_name_is_an_error() -> None:
    assert problem(io(delegate_cmds="any") | {f"{PREFIX}delegate_maps/": "hash"}, lambda: "web")

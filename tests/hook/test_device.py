"""The hook as a CDI device runs it: a profile by the administrator's word, no annotation's."""

import json
from collections.abc import Iterator

import pytest

from oci_bpf_hook.errors import BAD_POLICY, MOUNT_FAILED, REFUSED, UNKNOWN_NAME, USAGE
from tests.support.policy import audited, in_force
from tests.support.scratch import Scratch, assert_failed, io, run_hook

EVERYTHING = io(
    delegate_cmds="any", delegate_maps="any", delegate_progs="any", delegate_attachs="any"
)
PROFILES = """\
version: 1
profiles:
  maps: {delegate_cmds: [map_create], delegate_maps: [hash, array]}
  more: {delegate_cmds: [map_create, btf_load], delegate_maps: [lru_hash]}
"""
MAPS = ",delegate_cmds=map_create,delegate_maps=hash:array"
NO_RULES = PROFILES + "rules: []\n"


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch(tree=("sys/fs/bpf", "opt", "run")) as scratch:
        yield scratch


def device(container: Scratch, *arguments: str, **annotations: str) -> str:
    """The bpffs that the container gets, as mountinfo has it."""
    result = run_hook(container.state(annotations), *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    (mount,) = container.mounts()
    return mount


@pytest.mark.parametrize("annotations", [{}, {"a": "b"}, EVERYTHING, io(delegate_cmd="x")], ids=str)
def test_it_gives_the_profile_and_no_annotation_adds_to_it(
    container: Scratch, annotations: dict[str, str]
) -> None:
    with in_force(NO_RULES):
        assert device(container, "--profile", "maps", **annotations).endswith(MAPS)
    line = audited()[-1]
    assert (line["outcome"], line["rule"]) == ("granted", "cdi:maps")
    assert line["requested"] == {}
    assert line["requester"]["cdi"] == "maps"


def test_another_path(container: Scratch) -> None:
    with in_force(NO_RULES):
        mount = device(container, "--profile", "maps", "--path", "/run/bpf")
    assert f" {container.root}/run/bpf " in mount


@pytest.mark.parametrize("name", ["mapz", "", "maps:more", "maps\nroot: x", "../maps", "x" * 9999])
def test_a_profile_that_the_policy_hasn_t(container: Scratch, name: str) -> None:
    with in_force(NO_RULES):
        result = run_hook(container.state({}), "--profile", name)
    words = ("the CDI device: the policy has no profile",)
    assert_failed(result, UNKNOWN_NAME, *words, container=container)
    line = audited()[-1]
    assert (line["outcome"], line["code"], line["rule"]) == ("refused", UNKNOWN_NAME, None)


RULES = {
    "denied": ("- {name: r, match: {cdi: 'm*'}, deny: not here}\n", "not here"),
    "narrower": (
        "- {name: r, match: {cdi: maps}, allow: {delegate_cmds: [map_create]}}\n",
        "doesn't allow",
    ),
    "another's": ("- {name: r, match: {cdi: more}, allow: {profiles: [maps]}}\n", "no rule"),
    "another user's": (
        "- {name: r, match: {cdi: maps, user: 4711}, allow: {profiles: [maps]}}\n",
        "match: {cdi: ",
    ),
    "another path": (
        "- {name: r, match: {cdi: maps}, allow: {profiles: [maps], paths: [/run/*]}}\n",
        "doesn't allow the path",
    ),
}


@pytest.mark.parametrize(("rules", "words"), RULES.values(), ids=RULES)
def test_a_policy_that_forbids(container: Scratch, rules: str, words: str) -> None:
    with in_force(f"{PROFILES}rules:\n{rules}"):
        result = run_hook(container.state({}), "--profile", "maps")
    assert_failed(result, REFUSED, words, container=container)
    assert audited()[-1]["requester"]["cdi"] == "maps"


def test_a_policy_that_allows(container: Scratch) -> None:
    rules = "- {name: devices, match: {cdi: maps, user: root}, allow: {profiles: [maps]}}\n"
    with in_force(f"{PROFILES}rules:\n{rules}"):
        assert device(container, "--profile", "maps").endswith(MAPS)
    assert audited()[-1]["rule"] == "devices"


def test_rules_about_annotations_are_not_about_devices(container: Scratch) -> None:
    with in_force(f"{PROFILES}rules:\n- {{name: nobody, deny: nothing}}\n"):
        assert device(container, "--profile", "maps").endswith(MAPS)


def test_rules_about_devices_are_not_about_annotations(container: Scratch) -> None:
    rules = "- {name: r, match: {cdi: '*'}, allow: {profiles: [maps]}}\n"
    with in_force(f"{PROFILES}rules:\n{rules}"):
        result = container.hook(io(profile="maps"))
    assert_failed(result, REFUSED, "no rule", container=container)


def test_annotations_can_t_say_that_they_are_a_device(container: Scratch) -> None:
    annotations = io(profile="maps") | {"cdi": "maps", "cdi.k8s.io/x": "bpffs.io/profile=maps"}
    with in_force(NO_RULES):
        result = container.hook(annotations)
    assert_failed(result, REFUSED, "no rule", container=container)


ALLOWING = f"{PROFILES}rules:\n- {{name: r, allow: {{profiles: [more]}}}}\n"


def test_it_hides_no_other(container: Scratch) -> None:
    """Both hooks run where the hooks directory has one too."""
    state = container.state(io(profile="more"))
    with in_force(ALLOWING):
        before = len(audited())
        assert run_hook(state).returncode == 0
        assert_failed(run_hook(state, "--profile", "maps"), MOUNT_FAILED, "another delegated bpffs")
        assert [line["outcome"] for line in audited()[before:]] == ["granted", "refused"]
        (mount,) = container.mounts()
        assert "map_create:btf_load" in mount


def test_beside_annotations_at_another_path(container: Scratch) -> None:
    state = container.state(io(profile="more", path="/run/bpf"))
    with in_force(ALLOWING):
        assert run_hook(state).returncode == 0
        assert run_hook(state, "--profile", "maps").returncode == 0
    assert len(container.mounts()) == 2


def test_twice_it_is_one(container: Scratch) -> None:
    with in_force(NO_RULES):
        for _ in range(2):
            device(container, "--profile", "maps")


def test_two_devices(container: Scratch) -> None:
    with in_force(NO_RULES):
        device(container, "--profile", "maps")
        result = run_hook(container.state({}), "--profile", "more")
    assert_failed(result, MOUNT_FAILED, "another delegated bpffs")
    assert len(container.mounts()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--profile",),
        ("--profile", "maps", "more"),
        ("--profile", "maps", "--path", "run/bpf"),
        ("--profile", "maps", "--path", "/run/../etc"),
        ("--profile", "maps", "--path", "/"),
        ("--profile", "maps", "--engine", "rkt"),
        ("--profile=maps", "--profile", "maps"),
    ],
)
def test_wrong_arguments(container: Scratch, arguments: tuple[str, ...]) -> None:
    with in_force(NO_RULES):
        result = run_hook(container.state({}), *arguments)
    assert_failed(result, USAGE, container=container)


def test_a_path_alone(container: Scratch) -> None:
    result = run_hook(container.state(io(profile="maps")), "--path", "/run/bpf")
    assert_failed(result, USAGE, "--profile NAME", container=container)


def test_a_policy_that_is_out_of_order(container: Scratch) -> None:
    with in_force("version: 1\nrule: []\n"):
        result = run_hook(container.state({}), "--profile", "maps")
    assert_failed(result, BAD_POLICY, container=container)


def test_the_state_is_looked_at_all_the_same(container: Scratch) -> None:
    state = json.dumps({"id": "x"})
    assert_failed(run_hook(state, "--profile", "maps"), 17, "has no pid", container=container)

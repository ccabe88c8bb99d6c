"""annotations.py: which keys ask for something, and all problems of them at once."""

import pytest

from oci_bpf_hook.delegation.annotations import KEYS, LISTS, PREFIX, Request, asked, parse
from oci_bpf_hook.delegation.written import written
from oci_bpf_hook.errors import HookError
from tests.support.requests import io, problem, problems, request, understand


@pytest.mark.parametrize(
    "annotations",
    [{}, {"io.bpffs": "x"}, {"io.bpffsx": "x"}, {"IO.BPFFS.PATH": "x"}, {" io.bpffs.path": "x"}],
)
def test_other_annotations_ask_for_nothing(annotations: dict[str, str]) -> None:
    assert not asked(annotations)
    assert understand(annotations) is None


@pytest.mark.parametrize("key", [*KEYS, "", "typo", "path/web"])
def test_every_annotation_of_ours_asks(key: str) -> None:
    assert asked({"org.example": "1", PREFIX + key: ""})


def test_the_defaults() -> None:
    found = request(io(delegate_cmds="prog_load"))
    assert found == Request(
        lists={"delegate_cmds": ("prog_load",)},
        path="/sys/fs/bpf",
        mode=0o1777,
        drop_unknown=False,
        shim=False,
        profiles=(),
        record="",
    )


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("delegate_cmd", "delegate_cmds"),
        ("delegate_attach", "delegate_attachs"),
        ("delegate_attaches", "delegate_attachs"),
        ("DELEGATE_PROGS", "delegate_progs"),
        ("delegate-maps", "delegate_maps"),
        ("modes", "mode"),
        ("Path", "path"),
        ("onunknown", "on_unknown"),
        ("delegate_cmd/web", "delegate_cmds/web"),
        ("delegate_cmds.web", "delegate_cmds"),
        # Only a word of it, which is less like the whole key than "mode" is.
        ("cmds", "delegate_cmds"),
        ("cmd", "delegate_cmds"),
        ("commands", "delegate_cmds"),
        ("maps/web", "delegate_maps/web"),
        ("programs", "delegate_progs"),
        ("attachments", "delegate_attachs"),
        ("unknown", "on_unknown"),
    ],
)
def test_a_misspelt_key_is_an_error_with_the_nearest(key: str, near: str) -> None:
    found = problem(io(delegate_cmds="any") | {PREFIX + key: "any"})
    assert found == f'"{PREFIX}{key}" isn\'t a known key; did you mean "{PREFIX}{near}"?'


def test_a_word_of_several_keys_gets_them_all() -> None:
    found = problem(io(delegate_cmds="any") | {f"{PREFIX}delegate/web": "any"})
    keys = " or ".join(f'"{PREFIX}{option}/web"' for option in LISTS)
    assert found.endswith(f"did you mean {keys}?")


@pytest.mark.parametrize("key", ["", "xyz", "/", "/web", "\n", "\u00fc" * 100])
def test_a_key_near_to_nothing_gets_the_list(key: str) -> None:
    assert problem(io(delegate_cmds="any") | {PREFIX + key: "any"}).endswith(
        f"isn't a known key; the known keys are {', '.join(KEYS)}"
    )


@pytest.mark.parametrize("key", ["path", "mode", "on_unknown"])
def test_a_key_that_delegates_nothing_is_an_error_alone(key: str) -> None:
    text = {"path": "/run/bpf", "mode": "700", "on_unknown": "drop"}[key]
    said = problem({PREFIX + key: text})
    assert PREFIX + key in said
    assert f"alone delegates nothing; add {PREFIX}profile" in said


def test_all_problems_at_once_each_with_its_key_and_item() -> None:
    found = problems(
        io(
            delegate_cmds="prog_load,5,prog-load",
            delegate_maps="!hash",
            delegate_progs="any,!any",
            delegate_attachs="0x",
            path="tmp",
            mode="9",
            on_unknown="ignore",
            delegate_link="any",
        )
        | {f"{PREFIX}mode/web": "1"},
        lambda: None,
    )
    wanted = [
        ("delegate_link", "isn't a known key"),
        ("mode/web", "the container's name"),
        ("delegate_cmds", '"5" is a decimal number'),
        ("delegate_cmds", '"prog-load" can\'t be the name'),
        ("delegate_maps", '"!hash" takes away from a list that gives nothing'),
        ("delegate_progs", '"!any" leaves nothing of the list'),
        ("delegate_attachs", '"0x" isn\'t a hexadecimal'),
        ("path", '"tmp" isn\'t an absolute path'),
        ("mode", '"9" isn\'t an octal mode'),
        ("on_unknown", '"ignore" is neither'),
    ]
    assert len(found) == len(wanted)
    for text, (key, what) in zip(found, wanted, strict=True):
        assert text.startswith(f'"{PREFIX}{key}"')
        assert what in text


def test_a_recording() -> None:
    found = request({PREFIX + "record": " my-run.1 ", PREFIX + "path": "/run/bpf"})
    assert (found.record, found.lists, found.profiles, found.path) == (
        *("my-run.1", {}, ()),
        "/run/bpf",
    )
    assert request(written(found)) == found
    # Of a pod's containers, one.
    assert parse({PREFIX + "record/web": "x"}, lambda: "db") is None


@pytest.mark.parametrize("name", ["", " ", "a/b", "../x", ".x", "-x", "a b", "x" * 64, "\u00e4"])
def test_no_name_of_a_recording(name: str) -> None:
    with pytest.raises(HookError) as caught:
        request({PREFIX + "record": name})
    assert "can't be the name of a recording" in str(caught.value)


def test_a_recording_is_all_or_nothing() -> None:
    for key, text in (("delegate_cmds", "any"), ("profile", "xdp")):
        with pytest.raises(HookError) as caught:
            request({PREFIX + "record": "x", PREFIX + key: text})
        assert "leave out the lists and profiles" in str(caught.value)

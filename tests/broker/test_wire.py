"""The protocol: what is written is read back, and anything else is refused by either side."""

import copy
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.broker import wire
from oci_bpf_hook.delegation.annotations import parse
from oci_bpf_hook.errors import BAD_STATE, EXITS, LISTED, NO_BROKER, REFUSED, HookError
from tests.support.places import ROOT

SCHEMA = json.loads((ROOT / "schema" / "wire.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

OPTIONS = [kind.option for kind in KINDS]
masks = st.dictionaries(st.sampled_from(OPTIONS), st.integers(0, (1 << 64) - 1))
texts = st.text(max_size=50)
sentences = st.lists(texts, max_size=LISTED).map(tuple)
grants = st.builds(
    lambda m, r, d, t: wire.Granted(masks=m, rule=r, dropped=d, trimmed=t),
    *(masks, texts, sentences, sentences),
)
claims = st.dictionaries(st.sampled_from(["container", "image", "namespace", "pod"]), texts)
asks = st.builds(
    lambda i, a, c: wire.Ask(id=i, annotations=a, claims=c),
    *(texts, st.dictionaries(texts, texts), claims),
)
# JSON of any kind, to be put in place of a part of a message.
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def valid(message: dict[str, object]) -> object:
    """The message as it comes out at the other end."""
    VALIDATOR.validate(message)
    return json.loads(json.dumps(message))


@given(asks)
def test_a_request(ask: wire.Ask) -> None:
    assert wire.read_ask(valid(wire.ask(ask))) == ask


@given(grants)
def test_a_decision(granted: wire.Granted) -> None:
    assert wire.read_granted(valid(wire.granted(granted))) == granted


def test_the_short_ones() -> None:
    wire.read_go_on(valid(wire.go_on()))
    wire.read_mounted(valid(wire.mounted()))


@given(st.sampled_from(sorted(EXITS)), st.lists(texts, min_size=1))
def test_an_error_is_the_hooks(code: int, problems: list[str]) -> None:
    message = wire.refused(code, problems)
    assert VALIDATOR.is_valid(message) == (code in wire.CODES)
    if code not in wire.CODES:
        with pytest.raises(HookError, match="an error without a reason"):
            wire.read_granted(message)
        return
    for read in (wire.read_granted, wire.read_mounted):
        with pytest.raises(HookError) as caught:
            read(message)
        assert (caught.value.code, caught.value.sentences) == (code, tuple(problems[:LISTED]))


def test_what_a_request_of_annotations_is() -> None:
    annotations = {"io.bpffs.delegate_cmds/web": "any,!btf_load", "io.bpffs.mode": "0755"}
    request = parse(annotations, lambda: "web")
    assert request is not None
    found: dict[str, object] = {"container": "web", "image": None, "user": 7, "annotations": {}}
    ask = wire.make_ask(request, "1f", found)
    # The name is settled where the container is.
    assert ask.annotations == {"io.bpffs.delegate_cmds": "any:!btf_load", "io.bpffs.mode": "0755"}
    assert ask.claims == {"container": "web"}
    assert parse(ask.annotations, lambda: None) == request


GRANTED = wire.granted(wire.Granted(masks={"delegate_cmds": 1}, rule="r", dropped=(), trimmed=()))
ASK = wire.ask(wire.Ask(id="x", annotations={"a": "b"}, claims={"pod": "p"}))


@given(st.data())
def test_a_part_is_replaced(data: st.DataObject) -> None:
    """Whatever is in its place: it is the same by the schema and by us."""
    message = copy.deepcopy(data.draw(st.sampled_from([GRANTED, ASK, wire.go_on()])))
    reading = wire.read_ask if "id" in message else wire.read_granted
    if "mount" in message:
        reading = wire.read_go_on  # type: ignore[assignment]
    place: dict[str, object] = message
    key = data.draw(st.sampled_from([*message, "another"]))
    if isinstance(message.get(key), dict) and data.draw(st.booleans()):
        inner = message[key]
        assert isinstance(inner, dict)
        place, key = inner, data.draw(st.sampled_from([*inner, "another"]))
    place[key] = data.draw(anything)
    code, said = 0, ""
    try:
        reading(json.loads(json.dumps(message)))
    except HookError as error:
        code, said = error.code, str(error)
    assert code in (0, BAD_STATE, NO_BROKER)
    assert said.isprintable()
    # A float that is 1 is JSON's integer 1, and not ours; a bool isn't either, in either.
    if message["version"] == 1 and type(message["version"]) is int:
        assert VALIDATOR.is_valid(message) == (code == 0)


@given(anything)
def test_what_is_no_message(message: object) -> None:
    for reading, code in (
        (wire.read_ask, BAD_STATE),
        (wire.read_go_on, BAD_STATE),
        (wire.read_granted, NO_BROKER),
        (wire.read_mounted, NO_BROKER),
    ):
        with pytest.raises(HookError) as caught:
            reading(message)
        assert caught.value.code in (code, NO_BROKER)


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
def test_another_version(version: int) -> None:
    for message, reading in ((ASK, wire.read_ask), (GRANTED, wire.read_granted)):
        with pytest.raises(HookError, match="different releases") as caught:
            reading({**message, "version": version})
        assert caught.value.code == NO_BROKER


@pytest.mark.parametrize("code", [0, 1, 255, True, "12", None, 12.5])
def test_an_error_without_a_reason(code: object) -> None:
    message = {**wire.refused(REFUSED, ["no"]), "code": code}
    with pytest.raises(HookError, match="restart the broker") as caught:
        wire.read_granted(message)
    assert caught.value.code == NO_BROKER


@pytest.mark.parametrize("mask", ["0x", "1", "0x1g", "0x" + "f" * 17, "0X1", "0x-1", ""])
def test_a_mask_that_is_none(mask: str) -> None:
    with pytest.raises(HookError, match="a mask that isn't 0x and"):
        wire.read_granted({**GRANTED, "granted": {"delegate_cmds": mask}})

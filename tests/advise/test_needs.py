"""Needs: the union, the shares, the masks and the JSON form."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.advise import calls, needs
from oci_bpf_hook.advise.needs import Caution, NeedsError, as_json, from_json
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.resources import schema

ENUMS = table().enums(KINDS)


def hash_map(source: str) -> needs.Needs:
    return needs.make(
        reasons=calls.map_create("hash", source=source, kind=needs.MAP, why="map flows"),
        warnings=(Caution(code="x", source=source, text="beware"),),
    )


def xdp(source: str) -> needs.Needs:
    found = calls.prog_load("xdp", "xdp", source=source, kind=needs.PROGRAM, why="program drop")
    return needs.make(reasons=found, warnings=())


def test_union_and_shares() -> None:
    both = hash_map("a.o") | xdp("b.o") | xdp("a.o")
    assert both == needs.union([hash_map("a.o"), xdp("b.o"), xdp("a.o"), xdp("b.o")])
    assert both.sources == ("a.o", "b.o")
    assert both.shares()["b.o"] == xdp("b.o")
    assert both.shares()["a.o"] == hash_map("a.o") | xdp("a.o")
    assert needs.union([]) == needs.NOTHING


def test_lists_are_sorted_by_value() -> None:
    found = xdp("a.o") | hash_map("a.o")
    assert found.lists(ENUMS) == {
        "delegate_cmds": ["map_create", "prog_load"],
        "delegate_maps": ["hash"],
        "delegate_progs": ["xdp"],
        "delegate_attachs": ["xdp"],
        "capabilities": ["net_admin", "bpf"],
    }
    assert found.masks(ENUMS) == {
        "delegate_cmds": 0x21,
        "delegate_maps": 1 << 1,
        "delegate_progs": 1 << 6,
        "delegate_attachs": 1 << 37,
    }


def test_why() -> None:
    found = xdp("a.o") | xdp("b.o") | hash_map("a.o")
    assert [one.source for one in found.why("delegate_progs", "xdp")] == ["a.o", "b.o"]
    assert found.without([("delegate_progs", "xdp")]).why("delegate_progs", "xdp") == ()


def test_difference() -> None:
    one, other = xdp("a.o") | hash_map("a.o"), hash_map("b.o")
    assert needs.difference(other, one, ENUMS) == {}
    assert needs.difference(one, other, ENUMS) == {
        "delegate_cmds": ["prog_load"],
        "delegate_progs": ["xdp"],
        "delegate_attachs": ["xdp"],
        "capabilities": ["net_admin"],
    }


def test_json_both_ways() -> None:
    found = xdp("a.o") | hash_map("b.o")
    data = json.loads(json.dumps(as_json(found, ENUMS)))
    assert from_json(data, ENUMS) == found
    assert list(data) == [*needs.LISTS, "reasons", "warnings"]
    jsonschema.validate(data, schema("advise"))


def test_lists_alone() -> None:
    found = from_json({"delegate_maps": ["hash"], "capabilities": ["bpf"]}, ENUMS)
    assert found.bits == {("delegate_maps", "hash"), ("capabilities", "bpf")}


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"delegate_maps": "hash"},
        {"delegate_maps": ["hush"]},
        {"delegate_maps": [1]},
        {"delegate_maps": [["hash"]]},
        {"capabilities": [{}]},
        {"capabilities": ["BPF"]},
        {"reasons": [{"option": "delegate_maps"}]},
        {"reasons": [{"option": "m", "name": "n", "source": "", "kind": "", "why": ""}]},
        {"warnings": [7]},
        # What the schema doesn't have, advise --with would print again.
        {
            "reasons": [
                {"option": "delegate_maps", "name": "hash", "source": "", "kind": "x", "why": ""}
            ]
        },
        {"warnings": [{"code": "A code", "source": "", "text": ""}]},
        {"warnings": [{"code": "", "source": "", "text": ""}]},
    ],
    ids=repr,
)
def test_what_is_no_json_form(data: Any) -> None:
    with pytest.raises(NeedsError):
        from_json(data, ENUMS)


def test_capabilities() -> None:
    """By the numbers that the kernel's header has for them."""
    header = Path("/usr/include/linux/capability.h").read_text(encoding="utf-8")
    known = dict(re.findall(r"#define\s+CAP_(\w+)\s+(\d+)", header))
    for name, number in needs.CAPABILITIES.items():
        assert int(known[name.upper()]) == number

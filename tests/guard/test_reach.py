"""kfuncs.json, what a confined program may call: well-formed, and true of a real kernel's BTF."""

import json
import re
from typing import Any

import pytest
import yaml

from oci_bpf_hook.advise import objects
from oci_bpf_hook.advise.advice import DEFAULTS, advise
from oci_bpf_hook.bpf.btf import TAIL, layout_of, string
from oci_bpf_hook.bpf.btf_types import FUNC
from oci_bpf_hook.bpf.names import KINDS, MAPS, PROGS, Kind
from oci_bpf_hook.bpf.type_facts import HOST, reach
from oci_bpf_hook.guard.lsm.lists import FILE
from oci_bpf_hook.guard.lsm.table import markdown
from oci_bpf_hook.kernel import enums as kernel
from tests.corpus.check import KERNEL
from tests.project.test_profiles import USES
from tests.support.bpf import compiled, vmlinux
from tests.support.places import ROOT

POLICY = yaml.safe_load((ROOT / "oci_bpf_hook" / "policy.yaml").read_text(encoding="utf-8"))
DATA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
TYPES = [name for name, one in DATA["types"].items() if one["allowed"]]
ENUMS = kernel.table().enums(KINDS)
# These profiles are for tracing and for the kernel's own parts: an administrator's, unconfined.
UNCONFINED = {"tracing", "struct-ops-tcp"}
CONFINED = sorted(POLICY["profiles"].keys() - UNCONFINED)

KFUNCS = pytest.mark.parametrize("name", DATA["kfuncs"])
HELPERS = pytest.mark.parametrize("name", DATA["helpers"])
PROFILES = pytest.mark.parametrize("profile", CONFINED)

HELPER_PARTS = ("helpers", "harmless", "perfmon", "others")
ENUM = 6


def whole_sentences(text: str) -> bool:
    return re.fullmatch(r"[A-Z].{15,}[A-Za-z0-9)]\.", text) is not None


def release(text: str) -> tuple[int, int]:
    assert re.fullmatch(r"[0-9]+\.[0-9]+", text)
    major, minor = map(int, text.split("."))
    return major, minor


def test_its_parts() -> None:
    assert list(DATA) == [
        *("about", "newest_helper", "capabilities", "types", "maps", "kfuncs"),
        *("refused_on_purpose", "helpers", "harmless", "perfmon", "others", "loads"),
    ]


def test_no_name_occurs_twice_and_all_are_sorted() -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names)
        return dict(pairs)

    json.loads(FILE.read_text(encoding="utf-8"), object_pairs_hook=unique)
    for part in DATA.values():
        if isinstance(part, dict):
            assert list(part) == sorted(part)


def test_the_lists_keep_apart() -> None:
    assert DATA["kfuncs"].keys() & DATA["refused_on_purpose"].keys() == set()
    names = [name for part in HELPER_PARTS for name in DATA[part]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("part", "kind"), [("types", PROGS), ("maps", MAPS)])
def test_what_is_refused_reaches_the_host_in_the_table_of_types(part: str, kind: Kind) -> None:
    far = {name: reach(kind.option, name, confined=True) for name in DATA[part]}
    # That is none at all, and nobody's way out.
    del far["unspec"]
    assert {name for name, one in far.items() if one == HOST} == {
        name for name in far if not DATA[part][name]["allowed"]
    }


@pytest.mark.parametrize(("part", "kind"), [("types", PROGS), ("maps", MAPS)])
def test_every_type_that_is_known_is_decided(part: str, kind: Kind) -> None:
    # By value: one of a type's aliases is enough, and a name that no kernel has is a mistake.
    values = ENUMS[kind.option].values
    assert sorted(values[name] for name in DATA[part]) == sorted(set(values.values()))


@pytest.mark.parametrize("part", ["capabilities", "types", "maps"])
def test_what_is_decided_has_a_reason(part: str) -> None:
    for name, one in DATA[part].items():
        assert isinstance(one["allowed"], bool), name
        assert whole_sentences(one["why"]), name


@KFUNCS
def test_a_kernel_function_has_types_a_reason_and_a_source(name: str) -> None:
    one = DATA["kfuncs"][name]
    assert set(one) == {"types", "since", "why", "source"}
    assert one["types"] == sorted(set(one["types"]))
    assert one["types"]
    assert set(one["types"]) <= set(TYPES)
    assert (6, 0) <= release(one["since"]) <= (6, 9)
    assert whole_sentences(one["why"])
    assert re.fullmatch(rf"(kernel|net)/[a-z0-9_/]+\.c:{name}", one["source"])


def test_what_is_refused_on_purpose_has_a_reason() -> None:
    for name, why in DATA["refused_on_purpose"].items():
        assert re.fullmatch(r"bpf_[a-z0-9_]+", name)
        assert whole_sentences(why), name


@HELPERS
def test_a_helper_has_types_and_a_reason(name: str) -> None:
    one = DATA["helpers"][name]
    assert set(one) - {"elsewhere"} == {"number", "types", "reach", "closed", "why"}
    assert isinstance(one["closed"], bool)
    assert one["reach"] in {"process", "network", "cgroup", "kernel"}
    assert 0 < one["number"] <= DATA["newest_helper"]
    if one["types"] == "all":
        assert "elsewhere" not in one
    else:
        assert one["types"] == sorted(set(one["types"]))
        assert one["types"]
        assert set(one["types"]) <= set(TYPES)
    assert all(whole_sentences(one[key]) for key in ("why", "elsewhere") if key in one)


def test_each_number_up_to_the_newest_is_one_helper() -> None:
    assert sorted(numbers().values()) == list(range(1, DATA["newest_helper"] + 1))


def test_loads_of_the_kernels_memory() -> None:
    """By hand, from include/linux/filter.h: 0x20 and 0x40; 0xa0 and 0xc0 are for arenas."""
    assert DATA["loads"] == {"BPF_PROBE_MEM": 0x20 >> 5, "BPF_PROBE_MEMSX": 0x40 >> 5}


def test_what_has_to_be_so() -> None:
    """Facts by hand: whoever opens one of these has to change this, and say why."""
    counting = {name for name, one in DATA["capabilities"].items() if one["allowed"]}
    assert counting == {"CAP_BPF", "CAP_NET_ADMIN"}
    assert not {"syscall", "ext", "tracing", "lsm", "struct_ops", "lirc_mode2"} & set(TYPES)
    assert not DATA["maps"]["struct_ops"]["allowed"]
    for name in ("sk_lookup_tcp", "set_retval", "redirect_peer", "get_current_ancestor_cgroup_id"):
        assert DATA["helpers"][name]["closed"]
    names = " ".join(DATA["kfuncs"])
    assert not re.search("task|cgroup|cast|probe|throw|irq|preempt|arena|_wq_|obj_|kernel", names)


@PROFILES
def test_a_shipped_confined_profile_gets_its_types(profile: str) -> None:
    delegated = POLICY["profiles"][profile]
    assert set(delegated["delegate_progs"]) <= set(TYPES)
    maps = ENUMS[MAPS.option].values
    allowed = {maps[name] for name, one in DATA["maps"].items() if one["allowed"]}
    assert {maps[name] for name in delegated.get("delegate_maps", [])} <= allowed


def test_what_isnt_confined_doesnt_pass_for_it() -> None:
    for profile in UNCONFINED:
        assert not set(POLICY["profiles"][profile]["delegate_progs"]) <= set(TYPES)


@pytest.mark.parametrize("profile", sorted(USES.keys() - UNCONFINED))
def test_what_the_profiles_are_for_calls_nothing_that_is_refused(profile: str) -> None:
    """Each object's helpers, against those that are closed for any type that it's of."""
    for name in USES[profile].objects:
        found = objects.read(compiled(name), name)
        needs = advise((found,), DEFAULTS, KERNEL)
        types = {reason.name for reason in needs.reasons if reason.option == PROGS.option}
        called = {number for program in found.programs for number in program.helpers}
        assert called
        assert called & closed(types) == set()
        assert called & {*DATA["perfmon"].values(), *DATA["others"].values()} == set()


def numbers() -> dict[str, int]:
    """Every helper's number."""
    numbered: dict[str, int] = {name: one["number"] for name, one in DATA["helpers"].items()}
    for part in ("harmless", "perfmon", "others"):
        numbered |= DATA[part]
    return numbered


def closed(types: set[str]) -> set[int]:
    """The numbers of the helpers that a program of any of the `types` may not call."""
    return {
        one["number"]
        for one in DATA["helpers"].values()
        if one["closed"] and (one["types"] == "all" or types & set(one["types"]))
    }


def functions(data: bytes) -> set[str]:
    """The names of all functions in the BTF `data`."""
    layout = layout_of(data)
    found, position = set(), layout.types
    while position < layout.types_end:
        name, info = (
            int.from_bytes(data[at : at + 4], layout.order) for at in (position, position + 4)
        )
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if kind == FUNC:
            found.add(string(data, layout, name))
        position += 12 + TAIL[kind][0] + TAIL[kind][1] * vlen
    return found


def helper_numbers(data: bytes) -> dict[str, int]:
    """enum bpf_func_id of the BTF `data`, with the guard at its end."""
    layout = layout_of(data)
    position = layout.types
    while position < layout.types_end:
        info = int.from_bytes(data[position + 4 : position + 8], layout.order)
        name = int.from_bytes(data[position : position + 4], layout.order)
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if kind == ENUM and string(data, layout, name) == "bpf_func_id":
            pairs = [
                [int.from_bytes(data[at + n : at + n + 4], layout.order) for n in (0, 4)]
                for at in range(position + 12, position + 12 + 8 * vlen, 8)
            ]
            return {string(data, layout, text): value for text, value in pairs}
        position += 12 + TAIL[kind][0] + TAIL[kind][1] * vlen
    raise AssertionError("no enum bpf_func_id")


@pytest.fixture(scope="module")
def btf() -> bytes:
    data = vmlinux()
    if data is None:
        pytest.skip(f"this kernel has no BTF: {kernel.VMLINUX} is missing")
    return data


def test_this_kernel_has_the_functions_that_it_should(btf: bytes) -> None:
    found = functions(btf)
    # Of one that was built without the network card's metadata or without XDP nothing is asked.
    if "bpf_dynptr_from_skb" not in found:
        pytest.skip("this kernel is older than its functions for packets (6.4)")
    since = {name: release(one["since"]) for name, one in DATA["kfuncs"].items()}
    assert {name for name in since if name not in found} == set()


def test_the_helpers_numbers_are_this_kernels(btf: bytes) -> None:
    ours = {f"BPF_FUNC_{name}": number for name, number in numbers().items()}
    newest = DATA["newest_helper"]
    theirs = {name: number for name, number in helper_numbers(btf).items() if number <= newest}
    # An older kernel has fewer of them.
    assert theirs.items() <= {"BPF_FUNC_unspec": 0, **ours}.items()
    assert len(theirs) > 200


def test_the_tables_say_all_of_it() -> None:
    text = markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for part in ("capabilities", "types", "maps", "kfuncs", "refused_on_purpose"):
        for name in DATA[part]:
            assert len([row for row in rows if row.startswith(f"| `{name}` |")]) >= 1, name
    for name, one in DATA["helpers"].items():
        (row,) = (row for row in rows if row.startswith(f"| `bpf_{name}` ({one['number']}) |"))
        assert one["why"] in row
        assert one.get("elsewhere", "") in row
    for part in ("harmless", "perfmon", "others"):
        assert all(f"`bpf_{name}`" in text for name in DATA[part])


def test_the_tables_are_tables() -> None:
    columns = 0
    for line in markdown().splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        columns = columns or line.count("|")
        assert line.count("|") == columns
        assert line.endswith("|")


def test_types_are_all_or_named() -> None:
    rows = {row.split("`")[1]: row for row in markdown().splitlines() if row.startswith("| `bpf")}
    assert "| all |" in rows["bpf_iter_num_new"]
    assert "| `xdp` |" in rows["bpf_dynptr_from_xdp"]
    assert (
        "| all but `cgroup_device`, `cgroup_sock`, `cgroup_sock_addr`, `cgroup_sockopt`, "
        "`cgroup_sysctl` |" in rows["bpf_get_current_pid_tgid"]
    )

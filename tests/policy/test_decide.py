"""The policy's evaluation, against a second and deliberately simple one."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yaml import safe_load

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.delegation.annotations import LISTS, MODE, PATH, PREFIX, Request, device, parse
from oci_bpf_hook.delegation.masks import Grant, resolve
from oci_bpf_hook.errors import REFUSED, HookError
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.policy.compiled import Compiled
from oci_bpf_hook.policy.decide import Decision, decide, everything, glob, holds
from oci_bpf_hook.policy.pack import pack
from oci_bpf_hook.resources import BUILTIN_POLICY
from oci_bpf_hook.text.strict_json import load_json
from tests.support.subjects import subject as asker

BUILTIN = safe_load(BUILTIN_POLICY.read_text())
ENUMS = table().enums(KINDS)
NAMES = {option: list(enum.values) for option, enum in ENUMS.items()}
# What a confined token loads, as the shipped profiles of a container's own have it.
SAFE = frozenset(
    name
    for profile in ("own-sockets", "own-network", "own-cgroup")
    for name in BUILTIN["profiles"][profile]["delegate_progs"]
) | {"unspec"}
HEADER = {
    "identity": ["test"],
    "names": {option: enum.values for option, enum in ENUMS.items()},
    "engine": None,
    "image_annotations": False,
    "audit": {"to": "none", "required": False},
    "profiles": {},
    "uses": [],
}


def compiled(rules: list[dict[str, Any]]) -> Compiled:
    data = pack(HEADER, rules)
    return Compiled(lambda offset, size: data[offset : offset + size], load_json)


def rule(name: str = "r", **parts: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "match": {},
        "masks": {},
        "paths": None,
        "modes": None,
        "confined": False,
        "record": False,
        "shim": False,
        "trim": False,
        "deny": None,
    }
    return {"name": name, **empty, **parts}


words = st.text("ab*?", max_size=6)


@given(words, st.text("ab", max_size=8))
def test_glob(pattern: str, text: str) -> None:
    assert glob(pattern, text) == fnmatchcase(text, pattern)


def test_glob_takes_a_while_at_most() -> None:
    # A matcher that goes back at every star never ends here.
    assert not glob("*a" * 50 + "b", "a" * 5000)


masks = st.dictionaries(
    st.sampled_from(LISTS), st.integers(0, (1 << 64) - 1) | st.just((1 << 64) - 1)
)
matches = st.fixed_dictionaries(
    {},
    optional={
        "namespace": st.lists(st.sampled_from(["a", "b", "a*", "?"]), min_size=1, max_size=2),
        "user": st.lists(st.integers(0, 3), min_size=1, max_size=2),
        "group": st.lists(st.integers(0, 3), min_size=1, max_size=2),
        "host_network": st.booleans(),
        "annotations": st.dictionaries(
            st.sampled_from(["k", "l"]), st.lists(st.sampled_from(["v", "*", "w?"]), min_size=1)
        ),
    },
)
rules_of = st.lists(
    st.fixed_dictionaries(
        {
            "match": matches,
            "masks": masks,
            "trim": st.booleans(),
            "deny": st.none() | st.just("no"),
            "paths": st.none() | st.just(["/sys/*"]),
            "modes": st.none() | st.just([0o755]),
            "confined": st.booleans(),
            "record": st.booleans(),
            "shim": st.booleans(),
        }
    ),
    max_size=6,
)
subjects = st.fixed_dictionaries(
    {
        "namespace": st.none() | st.sampled_from(["a", "b", "ab"]),
        "user": st.integers(0, 3),
        "group": st.tuples(st.integers(0, 3)),
        "host_network": st.booleans(),
        "annotations": st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", "wx"])),
    }
)


def given_by(rule: dict[str, Any], option: str) -> int:
    """What the rule gives at most, which a confined one doesn't give of what it lists."""
    mask: int = rule["masks"].get(option, 0)
    names = ENUMS[option].names
    if rule["confined"] and option == "delegate_progs":
        return sum(1 << bit for bit in range(64) if mask >> bit & 1 and names.get(bit) in SAFE)
    if rule["confined"] and option == "delegate_maps":
        return sum(
            1 << bit
            for bit in range(64)
            if mask >> bit & 1 and names.get(bit) not in ("struct_ops", "insn_array")
        )
    return mask


def simple(rules: list[dict[str, Any]], subject: dict[str, Any], wanted: Grant) -> Any:
    """(number of the rule, masks), or "refused": the policy in the plainest words."""
    for number, one in enumerate(rules):
        fits = True
        for key, allowed in one["match"].items():
            value = subject[key]
            if key == "annotations":
                for name, patterns in allowed.items():
                    if name not in value or not [
                        p for p in patterns if fnmatchcase(value[name], p)
                    ]:
                        fits = False
            elif key == "host_network":
                fits = fits and value == allowed
            elif key == "group":
                fits = fits and bool(set(value) & set(allowed))
            elif key == "user":
                fits = fits and value in allowed
            else:
                fits = fits and value is not None
                fits = fits and bool([p for p in allowed if fnmatchcase(value or "", p)])
        if not fits:
            continue
        if one["deny"] or (one["paths"] and not wanted.path.startswith("/sys/")):
            return "refused"
        if one["modes"] and wanted.mode not in one["modes"]:
            return "refused"
        given_masks: dict[str, int] = {}
        for option, mask in wanted.masks.items():
            for bit in range(64):
                if mask >> bit & 1:
                    if given_by(one, option) >> bit & 1:
                        given_masks[option] = given_masks.get(option, 0) | 1 << bit
                    elif not one["trim"]:
                        return "refused"
        if not given_masks and wanted.masks:
            return "refused"
        return number, given_masks
    return "refused"


@given(
    rules_of,
    subjects,
    masks.filter(lambda found: all(found.values())),
    st.sampled_from([PATH, "/run/bpf"]),
    st.sampled_from([MODE, 0o755]),
)
def test_no_request_gets_a_bit_beyond_its_ceiling(
    rules: list[dict[str, Any]],
    subject: dict[str, Any],
    wanted: dict[str, int],
    path: str,
    mode: int,
) -> None:
    named = [{"name": str(number), **one} for number, one in enumerate(rules)]
    grant = Grant(masks=wanted, path=path, mode=mode)
    lists = {option: (f"{mask:#x}",) for option, mask in wanted.items()}
    request = Request(
        lists=lists, profiles=(), record="", path=path, mode=mode, drop_unknown=False, shim=False
    )
    expected = simple(rules, subject, grant)
    if expected == "refused":
        with pytest.raises(HookError) as refused:
            decide(compiled(named), asker(**subject), request, grant, ENUMS)
        assert refused.value.code == REFUSED
    else:
        found = decide(compiled(named), asker(**subject), request, grant, ENUMS)
        assert (int(found.rule), found.grant.masks) == expected
        assert found.confined is rules[int(found.rule)]["confined"]
        assert (found.grant.path, found.grant.mode) == (path, mode)


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=40), st.integers(0, 3))
def test_the_buckets_leave_no_rule_out(namespaces: list[str], user: int) -> None:
    rules = [rule(str(n), match={"namespace": [one]}) for n, one in enumerate(namespaces)]
    rules += [rule("users", match={"user": [user]}), rule("last")]
    policy_of = compiled(rules)
    for namespace in ("a", "b", "c", "d"):
        subject = asker(namespace=namespace, user=2)
        tried = [one["name"] for one in policy_of.rules(subject) if holds(one, subject)]
        assert tried == [one["name"] for one in rules if holds(one, subject)]


def test_every_excess_item_is_named() -> None:
    request = Request(
        lists={"delegate_progs": ("xdp", "bpfprogtypekprobe", "lsm"), "delegate_cmds": ("any",)},
        profiles=(),
        record="",
        path=PATH,
        mode=MODE,
        drop_unknown=False,
        shim=False,
    )
    wanted, _ = resolve(request, ENUMS, table, {})
    only = rule("only-xdp", masks={"delegate_progs": 1 << 6})
    with pytest.raises(HookError) as refused:
        decide(compiled([only]), asker(), request, wanted, ENUMS)
    text = str(refused.value)
    for item in ("any", "bpfprogtypekprobe", "lsm"):
        assert f'"{item}"' in text
    assert '"xdp"' not in text
    # What the items say no profile has asked for.
    assert "profile's" not in text
    assert refused.value.rule == "only-xdp"
    assert "policy.yaml" in text


def test_a_type_without_a_name_is_never_confined() -> None:
    """Nobody knows what a program of a type that this kernel hasn't reaches on another."""
    masks = {"delegate_progs": 1 << 63 | 1 << 6}
    lists = {"delegate_progs": ("xdp", hex(1 << 63))}
    request = Request(
        lists=lists, profiles=(), record="", path=PATH, mode=MODE, drop_unknown=False, shim=False
    )
    wanted, _ = resolve(request, ENUMS, table, {})
    assert wanted.masks == masks
    with pytest.raises(HookError) as refused:
        decide(compiled([rule(masks=masks, confined=True)]), asker(), request, wanted, ENUMS)
    assert f'never given io.bpffs.delegate_progs "{1 << 63:#x}"' in refused.value.sentences[0]
    trimming = rule(masks=masks, confined=True, trim=True)
    found = decide(compiled([trimming]), asker(), request, wanted, ENUMS)
    assert found.grant.masks == {"delegate_progs": 1 << 6}
    found = decide(compiled([rule(masks=masks)]), asker(), request, wanted, ENUMS)
    assert found.grant.masks == masks


def test_what_a_confined_token_is_never_given() -> None:
    """Said at once and with what it takes, though the rule lists it."""
    lists = {"delegate_progs": ("xdp", "tracing", "lsm"), "delegate_maps": ("hash", "struct_ops")}
    request = Request(
        lists=lists, profiles=(), record="", path=PATH, mode=MODE, drop_unknown=False, shim=False
    )
    wanted, _ = resolve(request, ENUMS, table, {})
    masks = {"delegate_progs": (1 << 64) - 1 & ~(1 << 29), "delegate_maps": (1 << 64) - 1}
    confined, trimming, unconfined = (
        compiled([rule("r", masks=masks, **parts)])
        for parts in ({"confined": True}, {"confined": True, "trim": True}, {})
    )
    with pytest.raises(HookError) as refused:
        decide(confined, asker(), request, wanted, ENUMS)
    never = 'rule "r" is confined, and a confined token is never given io.bpffs.delegate_'
    assert refused.value.sentences[:3] == (
        f'{never}maps "struct_ops"',
        'rule "r" doesn\'t allow io.bpffs.delegate_progs "lsm"',
        f'{never}progs "tracing"',
    )
    assert "allow: {confined: false, delegate_maps: " in refused.value.sentences[3]
    found = decide(trimming, asker(), request, wanted, ENUMS)
    assert found.grant.masks == {"delegate_progs": 1 << 6, "delegate_maps": 2}
    assert len(found.trimmed) == 3
    with pytest.raises(HookError) as refused:
        decide(unconfined, asker(), request, wanted, ENUMS)
    assert "lsm" in refused.value.sentences[0]
    assert len(refused.value.sentences) == 2


@pytest.mark.parametrize("recorded", [True, False])
def test_the_shim_where_that_is_allowed(recorded: bool) -> None:
    masks = {"delegate_cmds": 1}
    wanted = Grant(masks={} if recorded else masks, path=PATH, mode=MODE)
    asked_for = {"record": "r"} if recorded else {"delegate_cmds": "map_create"}
    request = parse({PREFIX + key: text for key, text in asked_for.items()}, lambda: None)
    shimmed = parse(
        {PREFIX + key: text for key, text in {**asked_for, "shim": "true"}.items()}, lambda: None
    )
    assert request
    assert shimmed
    without = compiled([rule(masks=masks, record=True)])
    with_it = compiled([rule(masks=masks, record=True, shim=True)])
    expected = decide(without, asker(), request, wanted, ENUMS)
    assert decide(with_it, asker(), request, wanted, ENUMS) == expected
    assert decide(with_it, asker(), shimmed, wanted, ENUMS) == expected
    with pytest.raises(HookError) as refused:
        decide(without, asker(), shimmed, wanted, ENUMS)
    assert refused.value.code == REFUSED
    hint = "to allow it, an administrator adds shim: true to its allow"
    assert refused.value.sentences[0] == f'rule "r" doesn\'t allow the shim; {hint}'


def test_a_device_s_shim() -> None:
    """A device's file is the administrator's; but where rules are about devices they decide."""
    request = device("p", None, "true")
    wanted = Grant(masks={"delegate_cmds": 1}, path=PATH, mode=MODE)
    assert decide(compiled([]), asker(cdi="p"), request, wanted, ENUMS).grant == wanted
    about = rule(match={"cdi": ["p"]}, masks={"delegate_cmds": 1})
    with pytest.raises(HookError, match="doesn't allow the shim"):
        decide(compiled([about]), asker(cdi="p"), request, wanted, ENUMS)
    allowing = compiled([{**about, "shim": True}])
    assert decide(allowing, asker(cdi="p"), request, wanted, ENUMS).grant == wanted


def test_a_device_of_no_rule_is_confined() -> None:
    request = device("p", None)
    found = Grant(masks={"delegate_progs": 1 << 6}, path=PATH, mode=MODE)
    decision = decide(compiled([]), asker(cdi="p"), request, found, ENUMS)
    assert decision == Decision(rule="cdi:p", match={}, grant=found, confined=True, trimmed=())
    tracing = Grant(masks={"delegate_progs": 1 << 26}, path=PATH, mode=MODE)
    with pytest.raises(HookError, match='profile\'s delegate_progs "tracing"') as refused:
        decide(compiled([]), asker(cdi="p"), request, tracing, ENUMS)
    assert refused.value.rule == "cdi:p"
    assert 'match: {cdi: "p"}, allow: {confined: false, ' in refused.value.sentences[1]


def test_a_trim_that_leaves_nothing() -> None:
    wanted = Grant(masks={"delegate_progs": 1 << 2}, path=PATH, mode=MODE)
    request = Request(
        lists={"delegate_progs": ("kprobe",)},
        profiles=(),
        record="",
        path=PATH,
        mode=MODE,
        drop_unknown=False,
        shim=False,
    )
    only = rule("only-xdp", masks={"delegate_progs": 1 << 6}, trim=True)
    with pytest.raises(HookError, match="allows nothing of what is asked for") as refused:
        decide(compiled([only]), asker(), request, wanted, ENUMS)
    assert refused.value.code == REFUSED


@given(rules_of, subjects, st.sampled_from([PATH, "/run/bpf"]), st.sampled_from([MODE, 0o755]))
def test_a_recording_gets_its_ceiling_where_that_is_allowed(
    rules: list[dict[str, Any]], subject: dict[str, Any], path: str, mode: int
) -> None:
    named = [{"name": str(number), **one} for number, one in enumerate(rules)]
    request = Request(
        lists={}, profiles=(), record="x", path=path, mode=mode, drop_unknown=False, shim=False
    )
    nothing = Grant(masks={}, path=path, mode=mode)
    # Which rule decides, and whether the place will do, is the same as for any other request.
    expected = simple(rules, subject, nothing)
    number = expected[0] if expected != "refused" else -1
    ceiling = (
        {
            option: mask
            for option in rules[number]["masks"]
            if (mask := given_by(rules[number], option))
        }
        if rules
        else {}
    )
    for recorded in (True, False):
        allowed = number >= 0 and bool(ceiling)
        if not allowed or (recorded and not rules[number]["record"]):
            with pytest.raises(HookError) as refused:
                _recording(recorded, named, subject, request, nothing)
            assert refused.value.code == REFUSED
        else:
            found = _recording(recorded, named, subject, request, nothing)
            assert (int(found.rule), found.grant.masks) == (number, ceiling)
            assert found.confined is rules[number]["confined"]
            assert (found.grant.path, found.grant.mode) == (path, mode)


def _recording(
    recorded: bool,
    rules: list[dict[str, Any]],
    subject: dict[str, Any],
    request: Request,
    nothing: Grant,
) -> Decision:
    """What a container's request comes to, or an administrator's own recording."""
    if recorded:
        return decide(compiled(rules), asker(**subject), request, nothing, ENUMS)
    return everything(compiled(rules), asker(**subject), request.path, request.mode)

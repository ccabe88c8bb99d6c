"""What a refusal says to add to the policy: pasted as it stands, it allows just that."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import ALL_BITS, KINDS
from oci_bpf_hook.bpf.type_facts import beyond_confined
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.policy.decide import holds
from oci_bpf_hook.policy.refusal import advice, without_guard
from oci_bpf_hook.policy.store.file import load
from oci_bpf_hook.policy.subject import Subject
from tests.support.subjects import subject as asker

ENUMS = kernel.enums(KINDS)


def pasted(subject: Subject, masks: dict[str, int]) -> dict[str, Any]:
    """The rule that is to be added for `subject`, which wants `masks`, as the policy has it."""
    text = advice(Grant(masks=masks, path="/sys/fs/bpf", mode=0o1777), subject, ENUMS)
    assert text.isascii()
    assert text.isprintable()
    _, dash, rule = text.partition("- {name")
    (found,) = load(f"version: 1\nrules:\n{dash}{rule}\n".encode(), "p.yaml").rules
    return found


@given(
    st.dictionaries(
        st.sampled_from([kind.option for kind in KINDS]), st.integers(1, ALL_BITS), min_size=1
    )
)
def test_all_that_is_wanted(masks: dict[str, int]) -> None:
    """Bits without a name too, which are hexadecimal: YAML takes those for numbers."""
    rule = pasted(asker(pod="a"), masks)
    assert rule["masks"] == masks
    # The lesser of the two that is enough.
    assert rule["confined"] is not bool(beyond_confined(masks, ENUMS))


def test_what_is_never_confined() -> None:
    """It is said beside the rule what that rule means."""
    for masks in ({"delegate_progs": 1 << 2}, {"delegate_maps": 1 << 26}):
        assert not pasted(asker(pod="a"), masks)["confined"]
        grant = Grant(masks=masks, path="/sys/fs/bpf", mode=0o1777)
        assert advice(grant, asker(pod="a"), ENUMS).startswith(
            "to allow it, which trusts the container with the kernel, an administrator puts among"
        )


def test_where_the_rule_belongs() -> None:
    """Before the rule that refuses, even if that matches everybody; without one anywhere."""
    grant = Grant(masks={"delegate_cmds": 1}, path="/sys/fs/bpf", mode=0o1777)
    assert "puts among the rules in /etc" in advice(grant, asker(pod="a"), ENUMS)
    assert "puts before that rule in /etc" in advice(grant, asker(pod="a"), ENUMS, {})


def test_without_a_guard() -> None:
    """The command that turns it on comes first, then the rule that does without."""
    grant = Grant(masks={"delegate_cmds": 1 << 5}, path="/sys/fs/bpf", mode=0o1777)
    text = str(without_guard("r", grant, "because", asker(user=1, container="a"), ENUMS))
    before, dash, rule = text.partition("- {name")
    for words in ("because", "oci-bpf-hook guard on", "trusts the container with the kernel"):
        start, found, before = before.partition(words)
        assert found, start
    (given_by_it,) = load(f"version: 1\nrules:\n{dash}{rule}\n".encode(), "p.yaml").rules
    assert given_by_it["masks"] == grant.masks
    assert given_by_it["match"] == {"container": ["a"]}
    assert given_by_it["confined"] is False


def test_all_that_has_a_name_is_not_all_that_there_is() -> None:
    masks = {option: enum.known for option, enum in ENUMS.items()}
    assert pasted(asker(pod="a"), masks)["masks"] == masks
    assert pasted(asker(pod="a"), {"delegate_cmds": ALL_BITS})["masks"] == {
        "delegate_cmds": ALL_BITS
    }


names = st.text(min_size=1) | st.text("a*?'\"\\é☃😀\x1b\n", min_size=1) | st.just("p" * 253)


@given(names, names)
def test_whoever_it_is(pod: str, namespace: str) -> None:
    subject = asker(pod=pod, namespace=namespace)
    assert holds(pasted(subject, {"delegate_maps": 2}), subject)


@pytest.mark.parametrize("name", ["*", "a*", "*" * 300, "\\*"])
def test_nobody_s_pattern_gets_into_the_policy(name: str) -> None:
    rule = pasted(asker(namespace=name), {"delegate_maps": 2})
    assert not holds(rule, asker(namespace="kube-system"))


def test_a_name_that_is_longer_than_any() -> None:
    subject = asker(container="c" * 5000)
    rule = pasted(subject, {"delegate_maps": 2})
    assert holds(rule, subject)
    assert len(rule["match"]["container"][0]) < 300


def test_nobody_in_particular() -> None:
    """It is said, as that rule would decide for everybody else too."""
    assert pasted(asker(pod=None, container=""), {"delegate_maps": 2})["match"] == {}
    grant = Grant(masks={"delegate_maps": 2}, path="/sys/fs/bpf", mode=0o1777)
    assert "with a match that only this container meets, - {name" in advice(grant, asker(), ENUMS)
    assert "with a match" not in advice(grant, asker(pod="a"), ENUMS)


def test_a_user_whose_claims_give_nothing() -> None:
    subject = asker(claimed=frozenset(["pod"]), pod="a", user=1000)
    assert pasted(subject, {"delegate_maps": 2})["match"] == {"user": [1000]}

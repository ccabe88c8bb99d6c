"""Which name was meant: a misspelt one, or the one that has the given words in it."""

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.similar import similar

ENUMS = table().enums(KINDS)


@pytest.mark.parametrize("option", ENUMS)
def test_every_name_is_found_by_its_words(option: str) -> None:
    """Each word, and each run of words, leads to a name that has it."""
    for name in ENUMS[option].values:
        words = name.split("_")
        for count in range(1, len(words) + 1):
            for at in range(len(words) - count + 1):
                run = words[at : at + count]
                (first, *_) = similar("-".join(run), ENUMS[option].values)
                found = first.split("_")
                assert any(found[i : i + count] == run for i in range(len(found))), (run, first)


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("skb", ("sock_ops", "cgroup_skb", "sk_skb"), ["cgroup_skb", "sk_skb"]),
        ("sockets", ("own-sockets", "own-network"), ["own-sockets"]),
        ("network", ("own-networks", "net"), ["own-networks"]),
        ("IPs", ("allow-ips", "ip"), ["allow-ips"]),
        ("xdq", ("xdp", "xdp-redirect"), ["xdp"]),
        ("qqqq", ("xdp", "own-sockets"), []),
        ("", ("xdp",), []),
        ("xdp", (), []),
    ],
)
def test_similar(name: str, known: tuple[str, ...], found: list[str]) -> None:
    assert similar(name, known) == found


def test_no_more_than_people_read() -> None:
    known = [f"own-{number}" for number in range(50)]
    assert similar("own", known) == known[:4]
    assert similar("x" * 1_000_000, known) == []

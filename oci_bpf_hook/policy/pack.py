"""Makes the compiled form of a policy, which `compiled.Compiled` reads."""

from json import dumps

from .compiled import BUCKET, INDEXED, MAGIC, PREAMBLE, bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .compiled import Rule


def pack(header: "Mapping[str, Any]", rules: "Sequence[Rule]") -> bytes:
    """The compiled form of a policy with this `header` and these `rules`, in their order.

    Each enum in the header's `names` becomes two texts: the names, and a character for each value.
    The enums are most of what is read before each grant, and in this form they are read fastest.
    """

    def text(value: object) -> bytes:
        return dumps(value, separators=(",", ":")).encode("ascii")

    general: list[tuple[int, Rule]] = []
    keyed: list[tuple[int, str, Rule]] = []
    for number, rule in enumerate(rules):
        keys = _keys(rule)
        keyed += [(number, key, rule) for key in keys]
        if not keys:
            general.append((number, rule))
    # The number of buckets is odd, because a remainder by an even one would depend more on the last
    # characters of a key than on the others.
    count = len(keyed) | 1 if keyed else 0
    buckets: list[list[tuple[int, str, Rule]]] = [[] for _ in range(count)]
    for entry in keyed:
        buckets[bucket(entry[1], len(buckets))].append(entry)
    texts = [text(entries) if entries else b"" for entries in buckets]
    table: list[bytes] = []
    offset = 0
    for entries_text in texts:
        table.append(BUCKET.pack(offset, len(entries_text)))
        offset += len(entries_text)
    names = {
        option: [" ".join(values), "".join(map(chr, values.values()))]
        for option, values in header["names"].items()
    }
    head = text({**header, "names": names, "general": general})
    return b"".join([PREAMBLE.pack(MAGIC, len(head), len(texts)), *table, head, *texts])


def _keys(rule: "Rule") -> list[str]:
    """The keys of the buckets that have `rule`; none if it has to be tried for everybody."""
    for attribute in INDEXED:
        wanted = rule["match"].get(attribute)
        if wanted and not any("*" in str(one) or "?" in str(one) for one in wanted):
            return [f"{attribute}={one}" for one in wanted]
    return []

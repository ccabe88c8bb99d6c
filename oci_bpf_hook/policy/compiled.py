"""Reads the compiled form of a policy, in which names are masks and users are numbers.

A policy of thousands of rules isn't read as a whole.  Rules that match exactly one namespace or one
user are found through a table of buckets; all others, the general rules, are always tried.
"""

from _struct import Struct

from ..bpf.names import KINDS, Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .subject import Subject

    # A rule's JSON object: name, match, and masks, paths, modes, confined, record, shim, trim or
    # deny.
    Rule = dict[str, Any]


MAGIC = b"OBPFPOL5"
# The magic, the length of the header, and the number of buckets.
PREAMBLE = Struct("<8sII")
# A bucket's offset from the end of the header, and its length, both in bytes.
BUCKET = Struct("<II")
# The last field of the compiled form: the length of all that is before it.  It shows that the file
# is complete; otherwise a missing bucket would be noticed only when a request needs it.
END = Struct("<Q")
# Rules with exactly one of these are found by their bucket.
INDEXED = ("namespace", "user")


class Compiled:
    """A compiled policy, of which `read(offset, size)` gives bytes; `load_json` decodes JSON.

    Raises ValueError if it isn't a compiled policy.  The attributes are the fields of its header:
    `identity` is what it was made from (`store.cache.identity_of`), `enums` are the kernel's names,
    `engine` is the engine that runs the hook, or None, `profiles` have their masks by option, and
    `uses` are the attributes that the rules match.
    """

    def __init__(
        self, read: "Callable[[int, int], bytes]", load_json: "Callable[[bytes], Any]"
    ) -> None:
        self._read = read
        self._load = load_json
        preamble = read(0, PREAMBLE.size)
        if len(preamble) != PREAMBLE.size or not preamble.startswith(MAGIC):
            raise ValueError("not a compiled policy")
        _, size, self._buckets = PREAMBLE.unpack(preamble)
        self._table = PREAMBLE.size
        header_at = self._table + self._buckets * BUCKET.size
        self._data = header_at + size
        header = load_json(read(header_at, size))
        self.identity: list[object] = header["identity"]
        self.enums: dict[str, Enum] = {}
        for kind in KINDS:
            names, values = header["names"][kind.option]
            pairs = zip(names.split(), map(ord, values), strict=True)
            self.enums[kind.option] = Enum(kind, dict(pairs))
        self.engine: str | None = header["engine"]
        self.image_annotations: bool = header["image_annotations"]
        self.audit_to: str = header["audit"]["to"]
        self.audit_required: bool = header["audit"]["required"]
        self.profiles: dict[str, dict[str, int]] = header["profiles"]
        self.uses: list[str] = header["uses"]
        self._general: list[tuple[int, Rule]] = header["general"]

    def rules(self, subject: "Subject") -> "Iterable[Rule]":
        """The rules that may hold for `subject`, in the policy's order."""
        found = list(self._general)
        for attribute in INDEXED:
            value = getattr(subject, attribute)
            if value is not None and self._buckets:
                key = f"{attribute}={value}"
                found += [(number, rule) for number, of, rule in self._bucket(key) if of == key]
        return (rule for _, rule in sorted(found, key=lambda entry: entry[0]))

    def every(self) -> "Iterable[Rule]":
        """All rules, in no particular order, for whoever describes the policy."""
        yield from (rule for _, rule in self._general)
        for number in range(self._buckets):
            yield from (rule for _, _, rule in self._numbered(number))

    def _bucket(self, key: str) -> "list[tuple[int, str, Rule]]":
        return self._numbered(bucket(key, self._buckets))

    def _numbered(self, number: int) -> "list[tuple[int, str, Rule]]":
        at = self._table + number * BUCKET.size
        offset, size = BUCKET.unpack(self._read(at, BUCKET.size))
        if not size:
            return []
        loaded: list[tuple[int, str, Rule]] = self._load(self._read(self._data + offset, size))
        return loaded


def bucket(key: str, count: int) -> int:
    """The number of the bucket of `key` among `count`.

    It is the same in each process, which Python's hash() wouldn't be.
    """
    return int.from_bytes(key.encode("utf-8", "surrogatepass"), "big") % count

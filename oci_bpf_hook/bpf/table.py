"""The shipped table of BPF's names, used for kernels without BTF and for better messages.

`bpf_enums.json` has every enumerator of the four enums with its value and, for those that
are newer than BPF tokens (6.9), the first release that has it.
`contrib/update-bpf-enums` brings it up to date from a kernel's header.
"""

import json
from collections.abc import Sequence

from .enumerators import make_enum
from .names import Enum, Kind


class Table:
    """The parsed table; `text` is the JSON file's content."""

    def __init__(self, text: str) -> None:
        self._enums: dict[str, dict[str, dict[str, int | str]]] = json.loads(text)["enums"]
        self._made: dict[str, Enum] = {}

    def enum(self, kind: Kind) -> Enum:
        """The enum of `kind`, made once."""
        if kind.option not in self._made:
            self._made[kind.option] = self.enums((kind,))[kind.option]
        return self._made[kind.option]

    def enums(
        self, kinds: Sequence[Kind], *, release: tuple[int, int] | None = None
    ) -> dict[str, Enum]:
        """The enums of `kinds` with the names of all kernels, or of `release`, by option.

        The table doesn't distinguish releases before 6.9 from 6.9.
        """
        return {
            kind.option: make_enum(kind, self._enumerators(kind, release), guarded=False)
            for kind in kinds
        }

    def since(self, kind: Kind, name: str) -> str:
        """The first release with the kernel's short `name`, such as "7.0"; "6.9" may mean older."""
        return str(self._enums[kind.enum][kind.prefix + name.upper()].get("since", "6.9"))

    def _enumerators(self, kind: Kind, release: tuple[int, int] | None) -> list[tuple[str, int]]:
        return [
            (name, int(row["value"]))
            for name, row in self._enums[kind.enum].items()
            if release is None or _release(str(row.get("since", "6.9"))) <= release
        ]


def _release(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)

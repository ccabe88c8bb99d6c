"""The kernel's names for what bpffs delegates, and their bits.

A `Kind` is one of the four enums: commands, map types, program types and attach types.
An `Enum` has the names that one kernel has in it; `enumerators` makes it.
"""

from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


ALL_BITS = (1 << 64) - 1


class Kind(Value):
    """One `delegate_*` option of bpffs: the option, the kernel's enum, its prefix."""

    __slots__ = ("enum", "option", "prefix", "what")
    option: str
    enum: str
    prefix: str
    what: str


CMDS = Kind(option="delegate_cmds", enum="bpf_cmd", prefix="BPF_", what="command")
MAPS = Kind(option="delegate_maps", enum="bpf_map_type", prefix="BPF_MAP_TYPE_", what="map type")
PROGS = Kind(
    option="delegate_progs", enum="bpf_prog_type", prefix="BPF_PROG_TYPE_", what="program type"
)
ATTACHS = Kind(option="delegate_attachs", enum="bpf_attach_type", prefix="BPF_", what="attach type")
KINDS = (CMDS, MAPS, PROGS, ATTACHS)


class Enum:
    """One of the four enums as one kernel has it.

    `values` maps the kernel's short lower-case names (`prog_load`) to their
    values, aliases included, in the enum's own order; `names` maps each value to
    the name that bpffs itself shows, which is the first of its aliases
    (kernel/bpf/inode.c, seq_print_delegate_opts).
    """

    __slots__ = ("_joined", "kind", "names", "values")

    def __init__(self, kind: Kind, values: "Mapping[str, int]") -> None:
        self.kind = kind
        self.values = values
        names: dict[int, str] = {}
        for name, value in values.items():
            names.setdefault(value, name)
        self.names = names
        # systemd's names, which are made when the first one is looked for.
        self._joined: dict[str, int] | None = None

    @property
    def known(self) -> int:
        """The mask of every bit that has a name."""
        mask = 0
        for value in self.names:
            mask |= 1 << value
        return mask & ALL_BITS

    def find(self, item: str) -> int | None:
        """The value that `item`, in lower case, stands for, or None.

        Takes the kernel's name (`prog_load`), the same with its prefix
        (`bpf_prog_load`), and systemd's, which is the prefixed name without
        underscores (`bpfprogload`).
        """
        value = self.values.get(item)
        if value is not None:
            return value
        prefix = self.kind.prefix.lower()
        if item.startswith(prefix):
            return self.values.get(item[len(prefix) :])
        if item.startswith("bpf") and "_" not in item:
            if self._joined is None:
                self._joined = {}
                for name, value in self.values.items():
                    self._joined.setdefault((prefix + name).replace("_", ""), value)
            return self._joined.get(item)
        return None


def bit(value: int) -> int | None:
    """The mask with the bit for `value`; None if there is no such bit."""
    return 1 << value if value < 64 else None

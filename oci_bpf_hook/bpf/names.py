"""The kernel's names for what bpffs delegates, and their bits.

A `Kind` is one of the four enums: commands, map types, program types and attach types.
An `Enum` has the names that one kernel has in it.  `btf`, `header` and `table` find the
enumerators in BTF, a C header and the shipped table; `make_enum` checks what they find.
"""

from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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


# The kernel's aliases and the names they stand for.  A renamed enumerator keeps its value, and
# nothing else in the enum shows that.
_ALIASES = (
    ("prog_run", "prog_test_run"),
    ("cgroup_storage", "cgroup_storage_deprecated"),
    ("percpu_cgroup_storage", "percpu_cgroup_storage_deprecated"),
)


class NamesError(ValueError):
    """These enumerators are not the enum they were taken for."""


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


def make_enum(kind: Kind, enumerators: "Iterable[tuple[str, int]]", *, guarded: bool) -> Enum:
    """The enum of `kind` with these `enumerators`: C names and values, in the enum's order.

    The `__MAX_*` enumerator at the end is checked and left out; with `guarded` it must
    be there, as in every kernel with BPF tokens (6.9).  Names must have the kind's
    prefix, be unique, and cover every value from 0 on, so that an enum that was cut
    short, shifted or mixed up with another is refused.  Raises NamesError.
    """
    prefix = kind.prefix
    guard: tuple[str, int] | None = None
    values: dict[str, int] = {}
    following = 0
    for name, value in enumerators:
        if guard is not None:
            # A flag that is combined with a command isn't a command itself and has no bit, such as
            # BPF_COMMON_ATTRS = 1 << 16 (Linux 7.0).
            if value > max(guard[1], 63) and not value & (value - 1):
                continue
            raise NamesError(f"enum {kind.enum}: {name} comes after {guard[0]}")
        if name.startswith("__MAX_BPF_"):
            guard = (name, value)
            continue
        if not name.startswith(prefix):
            raise NamesError(f"enum {kind.enum}: {name} doesn't begin with {prefix}")
        short = name[len(prefix) :].lower()
        # An alias repeats an earlier value; any other name has the next value.
        if not short or short in values or not 0 <= value <= following:
            raise NamesError(f"enum {kind.enum}: {name} = {value} is out of place")
        values[short] = value
        following = max(following, value + 1)
    for alias, name in _ALIASES:
        if alias in values and values[alias] != values.get(name, values[alias]):
            raise NamesError(f"enum {kind.enum}: {alias} isn't {name}")
    if not values or (guard is None and guarded):
        raise NamesError(f"enum {kind.enum}: it ends too early")
    if guard is not None and guard[1] != following:
        raise NamesError(f"enum {kind.enum}: {guard[0]} is {guard[1]}, not {following}")
    return Enum(kind, values)


def bit(value: int) -> int | None:
    """The mask with the bit for `value`; None if there is no such bit."""
    return 1 << value if value < 64 else None

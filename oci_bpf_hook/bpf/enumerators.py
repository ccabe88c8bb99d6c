"""Makes an Enum from the enumerators of a kernel, after checking them.

`btf`, `header` and `table` find the enumerators in BTF, a C header and the shipped table.
"""

from .names import Enum, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


# The kernel's aliases and the names they stand for.  A renamed enumerator keeps its value, and
# nothing else in the enum shows that.
_ALIASES = (
    ("prog_run", "prog_test_run"),
    ("cgroup_storage", "cgroup_storage_deprecated"),
    ("percpu_cgroup_storage", "percpu_cgroup_storage_deprecated"),
)


class NamesError(ValueError):
    """These enumerators are not the enum they were taken for."""


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

"""What to say of a name that isn't known: near matches, and which Linux has it.

Only a mistake pays for this module, and for what it imports.
"""

from difflib import get_close_matches

from .annotations import PREFIX
from .errors import quote
from .names import Enum, Kind, bit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .table import Table


def no_name(kind: Kind, item: str, enum: Enum, table: "Table", *, search: bool) -> tuple[str, int]:
    """What to say about a name that this kernel lacks; its bit if a newer kernel has it, else 0."""
    latest = table.enum(kind)
    value = enum.find(item)
    if value is not None:
        return f"{quote(item)} is {kind.what} {value}, and a mask ends at 63", 0
    value = latest.find(item)
    if value is not None:
        since = table.since(kind, latest.names[value])
        problem = f"this kernel has no {kind.what} {quote(item)}, which Linux has since {since}"
        return f"{problem}; take it out, or add {PREFIX}on_unknown=drop", bit(value) or 0
    if not search:
        return f"no {kind.what} is called {quote(item)}", 0
    short = item.removeprefix(kind.prefix.lower())
    near = get_close_matches(short[:64], enum.values, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(quote(name) for name in near)}?" if near else ""
    return f"no {kind.what} is called {quote(item)}{hint}", 0


def no_profile(
    what: str, name: str, profiles: "Mapping[str, object]", *, search: bool = True
) -> str:
    """What to say where `what` names a profile that isn't among the policy's `profiles`."""
    if not search:
        return f"{what}: the policy has no profile {quote(name)}"
    near = get_close_matches(name[:64], profiles, n=1)
    hint = f"did you mean {quote(near[0])}?" if near else f"it has {', '.join(profiles) or 'none'}"
    return f"{what}: the policy has no profile {quote(name)}; {hint}"

"""Reads those options of podman-run(1) that matter for a delegation."""

from collections.abc import Sequence

from ..values import Value


class Arguments(Value):
    """What a command line says about annotations, capabilities, the name and the user namespace."""

    __slots__ = ("annotations", "capabilities", "name", "user_namespace")
    annotations: dict[str, str]
    capabilities: list[str]
    name: str | None
    user_namespace: bool


# Options that are given as --name VALUE or --name=VALUE.
_VALUED = ("--annotation", "--cap-add", "--name", "--userns", "--uidmap", "--subuidname")


def arguments(words: Sequence[str]) -> Arguments:
    """What the command line `words` says."""
    found = Arguments(annotations={}, capabilities=[], name=None, user_namespace=False)
    name: str | None = None
    own = False
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in _VALUED:
            continue
        if not equals:
            value = next(rest, "")
        if option == "--annotation":
            key, _, text = value.partition("=")
            found.annotations[key] = text
        elif option == "--cap-add":
            found.capabilities.extend(value.split(","))
        elif option == "--name":
            name = value
        else:
            own = own or value not in ("", "host")
    return Arguments(
        annotations=found.annotations,
        capabilities=found.capabilities,
        name=name,
        user_namespace=own,
    )

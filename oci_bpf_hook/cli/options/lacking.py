"""Says what containers lack to use what they ask for; `trial` reports it among its findings."""

from collections.abc import Iterable, Mapping

from ...bpf.names import Enum
from ...delegation.annotations import PATH
from ...delegation.lint import Finding, lint
from ...formats.container import Asker
from ...formats.means import ADDED, PODMAN, Lack, lacks, misplaced, second, taking, token_path
from ...text.places import Spot


class Known:
    """What is found out only once, since most pods of a cluster ask for the same."""

    def __init__(self) -> None:
        self._linted: dict[tuple[object, ...], tuple[Finding, ...]] = {}
        self._types: dict[tuple[object, ...], dict[str, list[str]]] = {}
        self._precreate: bool | None = None

    def doubts(
        self, masks: Mapping[str, int], enums: Mapping[str, Enum], *, confined: bool
    ) -> tuple[Finding, ...]:
        """What the linter says of `masks`."""
        key = (confined, *masks.items())
        if key not in self._linted:
            self._linted[key] = lint(masks, enums, confined=confined)
        return self._linted[key]

    def types(self, masks: Mapping[str, int], enums: Mapping[str, Enum]) -> dict[str, list[str]]:
        """The types of `masks` that take a capability beside CAP_BPF, by that capability."""
        key = (*masks.items(),)
        if key not in self._types:
            self._types[key] = taking(masks, enums)
        return self._types[key]

    def adds_at_precreate(self) -> bool:
        """Whether podman on this host has a hook that adds what its containers lack."""
        if self._precreate is None:
            from ...doctor.directories import adds_at_precreate  # This imports tomllib.

            self._precreate = adds_at_precreate()
        return self._precreate

    def without_added(self, found: Iterable[Lack], engine: str | None) -> list[Lack]:
        """Those of `found` that the hook at precreate doesn't add under this `engine`."""
        listed = list(found)
        if engine != PODMAN or ADDED.isdisjoint(one.code for one in listed):
            return listed
        added = ADDED if self.adds_at_precreate() else ()
        return [one for one in listed if one.code not in added]


def lacking(
    one: Asker,
    path: str | None,
    spot: Spot,
    types: Mapping[str, list[str]],
    *,
    engine: str | None,
    known: Known,
) -> list[Lack]:
    """What `one` lacks to use these `types` and a bpffs at `path`; None if it isn't known where.

    `spot` is where the path is asked for, and `engine` the engine that runs the hook, if that is
    known.
    """
    if one.means is None:
        # Nobody says what the container has.
        found = [second(name, listed) for name, listed in types.items() if listed]
        found += [] if path in (None, PATH) else [token_path(str(path), None, None)]
        return known.without_added(found, engine)
    engine = one.means.engine or engine
    found = list(lacks(one.means, engine, types))
    found += misplaced(one.means, path, spot) if path else ()
    return known.without_added(found, engine)

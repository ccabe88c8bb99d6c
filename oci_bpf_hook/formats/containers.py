"""Reads any file that describes containers; its name and its content say of which kind it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..errors import BAD_STATE, USAGE, HookError
from ..text.places import Fault, Place, Spot, fault, spot_of
from .beside import Beside
from .container import Asker
from .content import Content, content
from .faults import raise_if_any, text_of
from .unit import Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Document = tuple[Any, Mapping[Place, Spot]]

KINDS = (
    "an OCI config.json or state, a Kubernetes manifest, a compose.yaml or a Quadlet *.container, "
    "*.pod or *.kube"
)
# What a file says that is meant for us, whatever else is wrong with it.
_OURS = re.compile(rb"^[\s{,-]*[\"']?(?:apiVersion|kind|services)[\"']?\s*:", re.MULTILINE)
# In YAML too a mapping may begin with { and a sequence with [, but seldom with a quote after it.
_JSON = re.compile(rb"\s*(?:\[\s*)*\{\s*(?:[\"}]|$)|\s*\[\s*\]")
_TEMPLATE = "{{"
_RENDER = (
    "this is a template, in which {{ }} stands for what isn't filled in yet; render it first, with "
    "helm template or whatever fills it in, and give the result"
)


def read(data: bytes, name: str, engine: str | None = None) -> tuple[Asker, ...]:
    """The containers that the file `name` with the content `data` describes.

    `engine` will run them, if that is known.  Raises HookError with every fault: BAD_STATE for JSON
    that can't be read and OCI's files, and USAGE for the others.
    """
    return read_all(data, name, engine=engine).askers


def read_all(
    data: bytes, name: str, beside: Beside | None = None, *, engine: str | None = None
) -> Content:
    """All that the file `name` with the content `data` describes, with what is `beside` it.

    Raises HookError as `read` does.
    """
    unit = Unit(name, data)
    if unit.is_one():
        from .units import read as read_unit

        return read_unit(unit, beside or Beside(), _read)
    return _read(data, name, engine)


def _read(data: bytes, name: str, engine: str | None, users: bool = False) -> Content:
    """What a file describes that is no unit file; `users` is as for `kubernetes.read`."""
    reader = _Reader(name, engine, json=bool(_JSON.match(data)), users=users)
    for document, spots in _documents(data, name):
        reader.add(document, spots)
    if not reader.known:
        raise _none_of_them(name)
    raise_if_any([*reader.faults, *_unfilled(reader.askers)], name)
    text = data.decode("utf-8", "replace")
    return content(name, reader.askers, others=reader.others, text=text)


def _documents(data: bytes, name: str) -> list[_Document]:
    """The documents in `data`, which is JSON or YAML.  Raises HookError."""
    if not _JSON.match(data):
        return _yaml(data, name)
    from . import json_places

    text = text_of(data, name)
    try:
        return json_places.documents(text)
    except ValueError:
        spot, why = json_places.spot_of_error(text)
    if _is_template(text, spot.line):
        raise_if_any([_unrendered(text)], name)
    raise HookError(BAD_STATE, f"{name}:{spot.line}:{spot.column}: this isn't JSON: {why}")


def _yaml(data: bytes, name: str) -> list[_Document]:
    try:
        from .yaml_documents import documents
    except ModuleNotFoundError as error:
        raise HookError(USAGE, f"{name}: {error}: reading YAML needs python3-yaml") from None

    faults: list[Fault] = []
    found: list[_Document] = [*documents(data, faults)]
    if faults:
        text = data.decode("utf-8", "replace")
        if _is_template(text, max(one.line for one in faults)):
            faults = [_unrendered(text)]
        elif not _OURS.search(data) and not name.endswith((".yaml", ".yml", ".json")):
            raise _none_of_them(name)
    raise_if_any(faults, name)
    return found


def _is_template(text: str, line: int) -> bool:
    """Whether what is wrong in the `line`, or before it, may be what a template has there."""
    at = text.find(_TEMPLATE)
    # The line in which YAML or JSON ends to be valid may be the next one.
    return at >= 0 and text.count("\n", 0, at) <= line


def _unrendered(text: str) -> Fault:
    return fault(spot_of(text, text.index(_TEMPLATE)), _RENDER)


def _unfilled(askers: list[Asker]) -> Iterator[Fault]:
    """A fault for each annotation of ours with a value that isn't filled in yet."""
    seen: dict[Spot, None] = {}
    for one in askers:
        for key, spot in one.where.items():
            if _TEMPLATE in key or _TEMPLATE in one.annotations.get(key, ""):
                seen.setdefault(spot)
    return (fault(spot, _RENDER) for spot in seen)


class _Reader:
    """Collects what the documents of the file `name` describe."""

    def __init__(self, name: str, engine: str | None, *, json: bool, users: bool) -> None:
        self._name = name
        self._engine = engine
        # OCI's own files are JSON.
        self._json = json
        self._users = users
        self.askers: list[Asker] = []
        self.others: list[str] = []
        self.faults: list[Fault] = []
        self.known = False

    def add(self, data: Any, spots: Mapping[Place, Spot]) -> None:
        """Add what one document describes."""
        # Each of these is imported only if a file may be of its kind.
        from . import compose, json_places, kubernetes, oci

        known = True
        if kubernetes.is_manifest(data):
            self.askers += kubernetes.read(
                data, spots, self.faults, self.others, engine=self._engine, users=self._users
            )
        elif compose.is_compose(data):
            services = list(compose.read(data, spots, self.faults))
            self.askers += services
            self.others += [] if services else ["a compose file without services"]
        elif self._json and oci.is_state(data):
            self.askers += oci.read_state(data, spots, self._name)
        elif self._json and oci.is_config(data):
            self.askers += oci.read_config(data, spots, self._name)
        elif isinstance(data, list):
            known = False
            for number, one in enumerate(data):
                if isinstance(one, dict):
                    self.add(one, json_places.Under(spots, (number,)))
        else:
            known = False
        self.known |= known


def _none_of_them(name: str) -> HookError:
    return HookError(USAGE, f"{name} isn't {KINDS}")

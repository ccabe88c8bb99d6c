"""Reads any file that describes containers; its name and its content say of which kind it is."""

from ..errors import BAD_STATE, USAGE, HookError
from ..text.places import Fault
from ..text.strict_json import load_json
from .container import Asker
from .faults import raise_if_any, text_of

KINDS = "an OCI config.json or state, a Kubernetes manifest, a compose.yaml or a *.container"


def read(data: bytes, name: str, engine: str | None = None) -> tuple[Asker, ...]:
    """The containers that the file `name` with the content `data` describes.

    `engine` will run them, if that is known.  Raises HookError with every fault: BAD_STATE for JSON
    that can't be read and OCI's files, and USAGE for the others.
    """
    if name.endswith((".container", ".container.conf")):
        from . import quadlet

        faults: list[Fault] = []
        found = (quadlet.read(text_of(data, name), quadlet.unit_name(name), faults),)
        raise_if_any(faults, name)
        return found
    if data.lstrip()[:1] == b"{":
        return _json(data, name, engine)
    return _yaml(data, name, engine)


def _json(data: bytes, name: str, engine: str | None) -> tuple[Asker, ...]:
    from . import compose, json_places, kubernetes, oci

    text = text_of(data, name)
    try:
        decoded = load_json(data)
    except ValueError:
        spot, why = json_places.spot_of_error(text)
        raise HookError(
            BAD_STATE, f"{name}:{spot.line}:{spot.column}: this isn't JSON: {why}"
        ) from None
    if oci.is_state(decoded):
        return oci.read_state(decoded, text, name)
    if oci.is_config(decoded):
        return oci.read_config(decoded, text, name)
    faults: list[Fault] = []
    spots = json_places.places(text)
    if kubernetes.is_manifest(decoded):
        found = tuple(kubernetes.read(decoded, spots, faults, engine))
    elif isinstance(decoded, dict) and compose.is_compose(decoded):
        found = tuple(compose.read(decoded, spots, faults))
    else:
        raise _none_of_them(name)
    raise_if_any(faults, name)
    return found


def _yaml(data: bytes, name: str, engine: str | None) -> tuple[Asker, ...]:
    from . import compose, kubernetes
    from .yaml_documents import documents

    faults: list[Fault] = []
    parsed = documents(data, faults)
    raise_if_any(faults, name)
    found: list[Asker] = []
    known = False
    for document, spots in parsed:
        if kubernetes.is_manifest(document):
            known = True
            found += kubernetes.read(document, spots, faults, engine)
        elif compose.is_compose(document):
            known = True
            found += compose.read(document, spots, faults)
    if not known:
        raise _none_of_them(name)
    raise_if_any(faults, name)
    return tuple(found)


def _none_of_them(name: str) -> HookError:
    return HookError(USAGE, f"{name} isn't {KINDS}")

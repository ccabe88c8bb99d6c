"""Separates what the user of a podman container asks for from what the container's image asks for.

podman before 4.6 copies the annotations of an image's manifest to the container, except those whose
key the user gives too, and the copies can't be told from the user's own.  But podman's storage has
the manifest, so an annotation counts as the image's if the manifest has it with exactly the same
text.  podman never copies labels.
"""

import posix

from ..delegation.annotations import PREFIX, parse
from ..errors import LISTED, REFUSED, HookError, quote
from ..files import read_file
from ..paths import POLICY
from ..text.strict_json import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..delegation.annotations import Request

# The ociVersions of a podman that copies images' annotations.  podman 4.6 was released in the month
# of runtime-spec 1.1.0, so no podman before 4.6 writes that version.
_COPYING = ("1.0.", "1.1.0-rc")
# The lists of containers in podman's storage; the second one exists since containers/storage 1.46.
_LISTS = ("containers.json", "volatile-containers.json")
_LIST_MAX = 64 << 20
_MANIFEST_MAX = 4 << 20
# The name of a manifest's file: "manifest", or "manifest-DIGEST" in base64.
_MANIFEST = "manifest"
_OF_DIGEST = "=bWFuaWZlc3Qt"
_ALLOW = (
    "an administrator who trusts every image with what the rules allow writes "
    f"image_annotations: true into {POLICY}"
)


def stored(identity: str, place: str) -> "tuple[str, dict[str, Any]] | None":
    """podman's entry for the container with the id `identity`, or None if it isn't podman's.

    The entry comes with GRAPHROOT/DRIVER, with which the paths in podman's storage begin.  `place`
    is the container's bundle, or its root filesystem.  Raises ValueError if the storage has no such
    container, or can't be read.
    """
    # podman's places are GRAPHROOT/overlay-containers/ID/userdata, GRAPHROOT/overlay/LAYER/merged,
    # and for the driver vfs GRAPHROOT/vfs/dir/LAYER.
    top, *below = place.rsplit("/", 3)
    if len(below) != 3:
        return None
    driver = f"{top}/{below[0].removesuffix('-containers')}"
    found = False
    for name in _LISTS:
        try:
            listed = _json(f"{driver}-containers/{name}", _LIST_MAX)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found = True
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict) and one.get("id") == identity:
                return driver, one
    if found:
        raise ValueError(f"{driver}-containers has no such container")
    return None


def of_user(annotations: "Mapping[str, str]", identity: str, place: str) -> dict[str, str]:
    """Those `annotations` of podman's container `identity` that aren't its image's.

    `place` is as for `stored`.  Raises ValueError if that can't be told.
    """
    found = stored(identity, place)
    image = found[1].get("image") if found else None
    if found is None or not image:  # It isn't podman's, or it was started without an image.
        return dict(annotations)
    manifests = list(_manifests(f"{found[0]}-images/{image}"))
    if not manifests:
        raise ValueError(f"{found[0]}-images has no manifest of the image")
    return {
        key: text
        for key, text in annotations.items()
        if all(manifest.get(key) != text for manifest in manifests)
    }


def _manifests(directory: str) -> "Iterator[dict[str, Any]]":
    """The annotations of each manifest of the image in `directory`."""
    try:
        names = posix.listdir(directory)
    except OSError:
        return
    for name in names:
        if name == _MANIFEST or name.startswith(_OF_DIGEST):
            try:
                manifest = _json(f"{directory}/{name}", _MANIFEST_MAX)
            except FileNotFoundError:  # The image is just being removed.
                continue
            found = manifest.get("annotations") if isinstance(manifest, dict) else None
            yield found if isinstance(found, dict) else {}


def _json(path: str, longest: int) -> object:
    """The JSON in the file `path`.  Raises FileNotFoundError, NotADirectoryError, ValueError."""
    try:
        return load_json(read_file(path, longest))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def copies(version: object) -> bool:
    """Whether podman may have copied an image's annotations.

    `version` is the ociVersion of the configuration that podman made.
    """
    return not isinstance(version, str) or not version or version.startswith(_COPYING)


def asked_by_user(
    request: "Request",
    annotations: "Mapping[str, str]",
    identity: str,
    place: str,
    name: "Callable[[], str | None]",
    *,
    rootless: bool = False,
) -> dict[str, str]:
    """The `annotations` without the image's, if the image's make no difference to the `request`.

    `name` is as for parse().  Raises HookError (REFUSED) if the image's annotations make a
    difference, or if it can't be told which they are.  But if that can't be told and the engine is
    `rootless`, all annotations count as the user's, since the broker grants only what that user may
    have.
    """
    allow = "" if rootless else f"; {_ALLOW}"
    try:
        theirs = of_user(annotations, identity, place)
    except ValueError as error:
        if rootless:
            return dict(annotations)
        raise HookError(
            REFUSED,
            "podman before 4.6 copies an image's annotations to the container, and it can't be "
            f"told whether the annotations here are the image's ({error}){allow}",
        ) from None
    try:
        if len(theirs) == len(annotations) or parse(theirs, name) == request:
            return theirs
    except HookError:  # What is left isn't a valid request.
        pass
    keys = sorted(key for key in annotations if key not in theirs and key.startswith(PREFIX))
    shown = ", ".join(map(quote, keys[:LISTED])) or "what the container is called"
    raise HookError(
        REFUSED,
        f"the image itself says {shown}, which podman before 4.6 copies to the container, and an "
        "image's annotations grant nothing; the user who starts the container can ask with the "
        f"container's name ({PREFIX}profile/NAME), or ask for nothing with an empty "
        f"annotation{allow}",
    )

"""Writes a Request as annotations, which `annotations` reads."""

from .annotations import MODE, PATH, PREFIX, Request


def written(request: Request) -> dict[str, str]:
    """The annotations that ask for exactly what `request` does."""
    found = {PREFIX + key: ":".join(items) for key, items in request.lists.items()}
    if request.profiles:
        found[PREFIX + "profile"] = ":".join(request.profiles)
    if request.record:
        found[PREFIX + "record"] = request.record
    if request.shim:
        found[PREFIX + "shim"] = "true"
    if request.path != PATH:
        found[PREFIX + "path"] = request.path
    if request.mode != MODE:
        found[PREFIX + "mode"] = f"{request.mode:04o}"
    if request.drop_unknown:
        found[PREFIX + "on_unknown"] = "drop"
    return found

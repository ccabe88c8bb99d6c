"""Tells whether a file is one of Quadlet's unit files, by its name or by its first section.

Most files are none, and so what reads unit files is imported only for those that are.
"""

from __future__ import annotations

from .faults import text_of

CONTAINER = "container"
POD = "pod"
KUBE = "kube"
# The section of each kind of unit that has to do with containers.
_SECTIONS = {"Container": CONTAINER, "Pod": POD, "Kube": KUBE}
_KINDS = (CONTAINER, POD, KUBE, "build", "image", "network", "volume")


class Unit:
    """What the name and the content of a file say of it as a unit file.

    `kind` is what the unit makes, such as "container", or empty if none of its sections says so.
    `name` is the unit's name, which is empty if nobody knows.  `alone` says that it is a drop-in.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        above, _, base = path.rpartition("/")
        name, kind = _of_drop_ins(above.rpartition("/")[2])
        self.alone = bool(kind) and base.endswith(".conf")
        if not self.alone:
            name, dot, kind = base.removesuffix(".conf").rpartition(".")
            kind = kind if dot and kind in _KINDS else ""
        self.name, self.kind = (name, kind) if kind else ("", "")
        self.known = bool(kind)

    def is_one(self) -> bool:
        """Whether this is a unit file; then its kind is known, if it has any."""
        if not self.known and _begins_like_one(self.data):
            from .unitfile import settings

            self.known = True
            found = (one.section for one in settings(unit_text(self.data, self.path), []))
            self.kind = next((_SECTIONS[one] for one in found if one in _SECTIONS), "")
        return self.known


def unit_text(data: bytes, path: str) -> str:
    """The text of the unit file `path` with the content `data`.  Raises HookError (USAGE)."""
    return text_of(data, path).removeprefix("\ufeff")


def _of_drop_ins(directory: str) -> tuple[str, str]:
    """The name and the kind of the units whose drop-ins are in the `directory`, or empty texts."""
    unit = directory.removesuffix(".d")
    name, _, kind = unit.rpartition(".")
    return (name, kind) if unit != directory and kind in _SECTIONS.values() else ("", "")


def _begins_like_one(data: bytes) -> bool:
    """Whether the first line of `data` that is no comment is the head of a section."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end].removeprefix(b"\xef\xbb\xbf").strip()
        if line and line[:1] not in (b"#", b";"):
            return _is_head(line.decode("utf-8", "replace"))
        at = end + 1
    return False


def _is_head(line: str) -> bool:
    """Whether `line` is a section's name in brackets."""
    name = line[1:-1]
    plain = name.replace("-", "").replace("_", "").isalnum()
    return line == f"[{name}]" and plain and name[0].isascii() and name[0].isalpha()

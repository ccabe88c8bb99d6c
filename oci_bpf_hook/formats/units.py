"""Reads Quadlet's unit files: *.container with its drop-ins, *.pod and *.kube.

podman-systemd.unit(5) describes them.  `unit` tells which files are any.
"""

from collections.abc import Callable, Iterator

from ..delegation.annotations import PREFIX
from ..errors import USAGE, HookError, quote
from ..text.places import Fault, fault
from . import quadlet
from .beside import Beside
from .container import Asker, asker
from .content import Content, Part, content
from .faults import raise_if_any
from .unit import CONTAINER, KUBE, POD, Unit, unit_text
from .unitfile import Setting, in_force, settings

# Reads a manifest with this content and path, for this engine; the truth value says whether
# something else gives its pods a user namespace.
ReadManifest = Callable[[bytes, str, str | None, bool], Content]
_STDIN = "standard input"


def read(unit: Unit, beside: Beside, read_manifest: ReadManifest) -> Content:
    """What the unit file describes.  Raises HookError (USAGE).

    `read_manifest` reads the manifest that a *.kube names.
    """
    if unit.kind == CONTAINER:
        return _container(unit, beside)
    if unit.kind == POD:
        return _pod(unit, beside)
    if unit.kind == KUBE:
        return _kube(unit, beside, read_manifest)
    unit_text(unit.data, unit.path)  # It may be no text.
    if unit.kind:
        return content(unit.path, [], others=[f"a *.{unit.kind} unit, which makes no container"])
    more = ""
    if b"BPFDelegate" in unit.data or b"PrivateBPF" in unit.data:
        more = "; convert --from systemd reads the settings of a service"
    raise HookError(
        USAGE, f"{unit.path} is a unit file without a section [Container], [Pod] or [Kube]{more}"
    )


class _Whole:
    """A unit file with its drop-ins, as one text."""

    def __init__(self, unit: Unit, beside: Beside) -> None:
        self.text = ""
        self.parts: list[Part] = []
        self._add(unit.path, unit.data)
        if unit.name and not unit.alone:
            for path, data in beside.drop_ins(f"{unit.name}.{unit.kind}"):
                self._add(path, data)

    def _add(self, path: str, data: bytes) -> None:
        if self.parts:
            # The empty line ends a value, and the section without a name the section before.
            self.text += "\n\n[]\n"
        self.parts.append(Part(line=self.text.count("\n") + 1, name=path))
        self.text += unit_text(data, path)

    def settings(self, section: str, faults: list[Fault]) -> list[Setting]:
        return [one for one in in_force(settings(self.text, faults)) if one.section == section]

    def raise_if_any(self, faults: list[Fault]) -> None:
        raise_if_any(faults, self.parts)

    def content(self, askers: Iterator[Asker] | list[Asker], others: list[str]) -> Content:
        return Content(
            askers=tuple(askers), others=tuple(others), parts=tuple(self.parts), text=self.text
        )


def _container(unit: Unit, beside: Beside) -> Content:
    whole = _Whole(unit, beside)
    faults: list[Fault] = []
    given = whole.settings("Container", [])  # quadlet.read finds the faults.
    pod = next((one.value for one in reversed(given) if one.key == "Pod"), "")
    users = _pod_users(pod, beside)
    one = quadlet.read(whole.text, unit.name, faults, pod_users=users, drop_in=unit.alone)
    whole.raise_if_any(faults)
    if not given and not unit.alone:
        raise HookError(USAGE, f"{unit.path} is a *.container without a section [Container]")
    return whole.content([one], [])


def _pod_users(pod: str, beside: Beside) -> bool | None:
    """Whether the unit file `pod` gives its containers a user namespace; None if nobody knows."""
    data = beside.read(pod) if pod.endswith(".pod") and "/" not in pod else None
    if data is None:
        return None
    whole = _Whole(Unit(pod, data), beside)
    return quadlet.has_users(whole.settings("Pod", []))


def _pod(unit: Unit, beside: Beside) -> Content:
    whole = _Whole(unit, beside)
    faults: list[Fault] = []
    given = whole.settings("Pod", faults)
    whole.raise_if_any(faults)
    doubts = [
        fault(
            one.spot,
            f"no container gets {PREFIX}* from a pod's {one.key}; put it under Annotation= of the "
            "*.container",
        )
        for one in given
        if PREFIX in one.value
    ]
    name = f"pod {quote(unit.name)[1:-1]}" if unit.name else "a pod"
    described = f"{name}, whose containers are the *.container files with Pod={unit.name}.pod"
    askers = [asker(name, {}, {}, doubts=doubts)] if doubts else []
    return whole.content(askers, [described])


def _kube(unit: Unit, beside: Beside, read_manifest: ReadManifest) -> Content:
    whole = _Whole(unit, beside)
    faults: list[Fault] = []
    given = whole.settings("Kube", faults)
    whole.raise_if_any(faults)
    manifest = next((one.value for one in reversed(given) if one.key == "Yaml"), "")
    if not manifest:
        if unit.alone:
            return whole.content([], ["a drop-in of a *.kube unit, which names no manifest"])
        raise HookError(USAGE, f"{unit.path} has no Yaml= that names a manifest")
    data = beside.read(manifest)
    if data is None:
        how = "it isn't there" if unit.path != _STDIN else "nobody knows where it is"
        raise HookError(
            USAGE,
            f"{unit.path} describes no container itself but names the manifest {quote(manifest)}, "
            f"and {how}; check the manifest",
        )
    path = manifest
    above, slash, _ = unit.path.rpartition("/")
    if not manifest.startswith("/"):
        path = f"{above}{slash}{manifest}"
    return read_manifest(data, path, "podman", quadlet.has_users(given))

"""The names that Kubernetes gives to the pods of an object, and podman kube play to containers.

Kubernetes: pkg/controller/controller_utils.go (getPodsPrefix), the functions of the controllers
that are named below, and apiserver/pkg/storage/names/generate.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import quote
from ..policy.forms import ANY, Form, Part, form
from ..policy.whom import literally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A made-up name has at most _KEPT characters of generateName, and then five random ones of these
# (generate.go).
_RANDOM = "bcdfghjklmnpqrstvwxz2456789"
_RANDOMS = (_RANDOM,) * 5
_KEPT = 58
# The API server refuses a longer name.
_LONGEST = 253
# The letters that stand for the digits of pod-template-hash, a 32-bit number (SafeEncodeString).
# It doesn't begin with a zero, and a number of ten digits begins with at most a 4.
_DIGITS = "456789bcdf"
_FIRST = _DIGITS[1:]
_FIRST_OF_TEN = _DIGITS[1:5]
# A CronJob's job has the minutes since 1970 (getJobName), eight digits from 2008 to 2160.
_MINUTES = ("23456789", *("0123456789",) * 7)
# More ordinals than these aren't spelled out.
_ORDINALS = 100
_NUMBER = "0123456789"
_HASH = "pod-template-hash"
_Parts = tuple[Part, ...]


def of_template(kind: str, data: Mapping[str, Any]) -> Form | None:
    """What the pods of the object `data` of that `kind` are called; None if it is a named Pod."""
    metadata, spec = _mapping(data.get("metadata")), _mapping(data.get("spec"))
    given = metadata.get("name")
    if kind == "Pod" and given:
        return None
    called = f"the {_said(kind)} {_said(given)}" if given else f"this {_said(kind)}"
    what = f"the names of the pods of {called}"
    if kind == "Pod":
        what = "the name of this pod"
    name = _name(metadata)
    stem = len(stem_of(metadata, name)) if given else None
    spelled = _KINDS.get(kind, _other)
    return form(what, spelled(name, spec), stem=stem)


def stem_of(metadata: Mapping[str, Any], name: _Parts = ()) -> str:
    """What each name of the pods of an object with this `metadata` begins with, with its -.

    `name` is its own name, which begins with that of its owner if a Deployment or a CronJob has
    made it.
    """
    own = str(metadata.get("name") or "".join(name))
    owner = _owner(metadata)
    if owner.get("kind") in ("Deployment", "CronJob"):
        above = f"{owner.get('name')}-"
        return above if own.startswith(above) else f"{own}-"
    return f"{own}-"


def lasting(metadata: Mapping[str, Any]) -> str | None:
    """A glob for the named pod with this `metadata` if its name was made up; otherwise None.

    generateName, the owner and the hash in the labels say for sure that it was.
    """
    name = str(metadata.get("name"))
    base = metadata.get("generateName")
    owner = _owner(metadata)
    if not isinstance(base, str) and owner.get("kind") in _GENERATING:
        base = f"{owner.get('name')}-"
    if not isinstance(base, str) or not base or not name.startswith(base[:_KEPT]):
        return None
    base = base[:_KEPT]
    end = name[len(base) :]
    if len(end) != len(_RANDOMS) or not set(end).issubset(_RANDOM):
        # A StatefulSet's pods have its name as generateName too, but keep their numbers.  A job's
        # pods can have an index (podGenerateNameWithIndex).
        return f"{literally(base)}*" if owner.get("kind") == "Job" else None
    mark = f"-{_mapping(metadata.get('labels')).get(_HASH)}-"
    stem = f"{base.removesuffix(mark)}-" if base.endswith(mark) else base
    return f"{literally(stem)}*"


def of_podman(kind: str, data: Mapping[str, Any], container: str) -> tuple[str, ...]:
    """The names that podman kube play can give to the `container` of the object `data`.

    The usual one is the first; there is none if podman doesn't play such an object.  podman before
    4.4 numbers the pods of a Deployment, and later ones make one pod.
    """
    name = _mapping(data.get("metadata")).get("name")
    if not name or kind not in ("Pod", "DaemonSet", "Deployment", "Job"):
        return ()
    if kind == "Pod":
        return (f"{name}-{container}",)
    pods = [f"{name}-pod"]
    if kind == "Deployment":
        count = min(_number(_mapping(data.get("spec")).get("replicas"), 1), _ORDINALS)
        pods += [f"{name}-pod-{number}" for number in range(max(count, 1))]
    return tuple(f"{pod}-{container}" for pod in pods)


def of_podmans_deployment(kind: str, names: tuple[str, ...]) -> Form:
    """The Form of a container that has one of these `names` of podman's."""
    return form(
        "the name of the container", names, advice=f"podman before 4.4 numbers the pods of a {kind}"
    )


def _name(metadata: Mapping[str, Any]) -> _Parts:
    """The parts of an object's own name, which the API server may make up."""
    if metadata.get("name"):
        return tuple(str(metadata["name"])[:_LONGEST])
    base = metadata.get("generateName")
    return _generated(tuple(str(base)[:_LONGEST])) if base else (ANY,)


def _generated(base: _Parts) -> _Parts:
    return base[:_KEPT] + _RANDOMS


def _pods(name: _Parts, _: Mapping[str, Any]) -> Iterator[_Parts]:
    """The pods of a ReplicaSet, a DaemonSet or a ReplicationController."""
    yield _generated((*name, "-"))


def _pod(name: _Parts, _: Mapping[str, Any]) -> Iterator[_Parts]:
    yield name


def _deployment(name: _Parts, _: Mapping[str, Any]) -> Iterator[_Parts]:
    """Its ReplicaSets have the hash of the template in their names (getNewReplicaSet)."""
    for count in range(10, 0, -1):
        first = _FIRST_OF_TEN if count == 10 else _FIRST
        yield _generated((*name, "-", first, *(_DIGITS,) * (count - 1), "-"))


def _stateful_set(name: _Parts, spec: Mapping[str, Any]) -> Iterator[_Parts]:
    """getPodName: they are numbered, and the numbers stay."""
    start = _number(_mapping(spec.get("ordinals")).get("start"), 0)
    for digits in ordinals(start, _number(spec.get("replicas"), 1)):
        yield (*name, "-", *digits)


def _job(name: _Parts, spec: Mapping[str, Any]) -> Iterator[_Parts]:
    """An indexed job's pods have their index too (podGenerateNameWithIndex)."""
    if spec.get("completionMode") != "Indexed":
        yield _generated((*name, "-"))
        return
    for digits in ordinals(0, _number(spec.get("completions"), 1)):
        index = ("-", *digits, "-")
        yield (*name[: _KEPT - len(index)], *index, *_RANDOMS)


def _cron_job(name: _Parts, spec: Mapping[str, Any]) -> Iterator[_Parts]:
    template = _mapping(_mapping(spec.get("jobTemplate")).get("spec"))
    yield from _job((*name, "-", *_MINUTES), template)


def _other(name: _Parts, _: Mapping[str, Any]) -> Iterator[_Parts]:
    """Of a kind that isn't Kubernetes' own no more is known than what nearly all of them do."""
    yield (*name, "-", ANY)


def ordinals(start: int, count: int) -> Iterator[_Parts]:
    """The digits of the `count` numbers from `start` on; those of many aren't spelled out."""
    if count <= _ORDINALS:
        yield from (tuple(str(start + number)) for number in range(max(count, 1)))
        return
    for length in range(len(str(start)), len(str(start + count - 1)) + 1):
        yield (_NUMBER[1:], *(_NUMBER,) * (length - 1)) if length > 1 else (_NUMBER[start:],)


def _owner(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that has made the one with this `metadata`."""
    owners = metadata.get("ownerReferences")
    for one in owners if isinstance(owners, list) else ():
        if isinstance(one, dict) and one.get("controller") is True:
            return one
    return {}


def _number(value: object, default: int) -> int:
    # A number with more digits than these is refused by the API server.
    return value if type(value) is int and 0 <= value < 1 << 31 else default


def _said(text: object) -> str:
    return quote(str(text))[1:-1]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_GENERATING = ("ReplicaSet", "ReplicationController", "DaemonSet", "Job")
_KINDS = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _pods,
    "ReplicationController": _pods,
    "DaemonSet": _pods,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "CronJob": _cron_job,
}

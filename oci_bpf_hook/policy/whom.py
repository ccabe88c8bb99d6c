"""Writes the match of the rule that a refusal proposes.

The rule has to match the container when it is started again.  So the match has no name that an
engine makes up for each container or pod, and it is at least as narrow as the rule that refused.
"""

from .origin import OF_USERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .subject import Subject

# The longest Kubernetes name.  A longer text is cut, and its glob ends in *.
_LONGEST = 253
# What Kubernetes puts after the names of pods that it makes (rand.String, and a 32-bit number or
# minutes since 1970 before that), and the length of the id that engines show.
_RANDOM = frozenset("bcdfghjklmnpqrstvwxz2456789")
_HASH = frozenset("456789bcdf")
_DIGITS = frozenset("0123456789")
_HEX = _DIGITS | frozenset("abcdef")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_ID = 12
# The user and the group of every container that root's engines make.
_OF_ROOT = ("0", "[0]")
_NAMES = ("cdi", "namespace", "pod", "container")


class Whom:
    """The match of a rule for `subject`, in which the rule that refused matched by `decided`.

    `text` is the match, without its braces; `narrow` says whether only this container and those
    that take its place meet it; `remarks` are what an administrator has to know about it.
    """

    def __init__(self, subject: "Subject", decided: "Mapping[str, Any]") -> None:
        self._subject = subject
        self.remarks: list[str] = []
        if subject.claimed:
            self.text, self.narrow = f"user: {subject.user}", True
            return
        names = {
            key: literally(str(getattr(subject, key))) for key in _NAMES if getattr(subject, key)
        }
        names |= {key: glob for key, glob in subject.globs.items() if key in names}
        others = dict(self._others(decided))
        self.narrow = any(
            key not in ("engine", *OF_USERS) and value not in _OF_ROOT
            for key, value in others.items()
        )
        if "pod" in names and "pod" not in subject.globs:
            self._of_pod(names["pod"])
        if "container" in names and "container" not in subject.globs:
            names["container"] = self._of_container(names["container"], pod="pod" in names)
        given = {key: glob for key, glob in names.items() if glob}
        self.narrow = self.narrow or bool(given)
        self.text = ", ".join(
            [*(f'{key}: "{glob}"' for key, glob in given.items()), *_pairs(others)]
        )

    def _others(self, decided: "Mapping[str, Any]") -> "Iterator[tuple[str, str]]":
        """What else the rule that refused matched by, with this subject's own values."""
        for key, wanted in decided.items():
            value = getattr(self._subject, key)
            if key in _NAMES or value is None:
                continue
            if key == "annotations":
                from json import dumps  # Few rules are about annotations.

                pairs = (f'{dumps(one)}: "{literally(value[one])}"' for one in wanted)
                yield key, f"{{{', '.join(pairs)}}}"
            elif isinstance(value, bool):
                yield key, str(value).lower()
            elif isinstance(value, tuple):
                yield key, f"[{', '.join(str(one) for one in value if one in wanted)}]"
            elif isinstance(value, str):
                yield key, f'"{literally(value)}"'
            else:
                yield key, str(value)

    def _of_pod(self, name: str) -> None:
        """Say what can't be known for sure of a pod's `name`: whether it was made up."""
        stem, dash, end = name.rpartition("-")
        if not dash or len(end) != 5 or not _RANDOM.issuperset(end):
            return
        above, dash, middle = stem.rpartition("-")
        is_hash = 8 <= len(middle) <= 10 and _HASH.issuperset(middle)
        is_minutes = len(middle) == 8 and _DIGITS.issuperset(middle)
        if dash and (is_hash or is_minutes):
            stem = above
        self.remarks.append(
            f'if a Deployment, a DaemonSet or a job made the pod "{name}", the next pod has '
            f'another name, and the rule needs pod: "{stem}-*"'
        )

    def _of_container(self, name: str, *, pod: bool) -> str:
        """A glob for the container called `name`; empty if no rule should have the name."""
        if len(name) >= _ID and _HEX.issuperset(name):
            self.remarks.append(
                f'"{name}" is the container\'s id, which is another one next time; start it with a '
                "name (--name) and match that, container: NAME"
            )
            return ""
        parts = name.split("_")
        if parts[0] == "k8s" and len(parts) == 6 and len(parts[4]) == 36:
            # k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT: no container has the same two last parts.
            return f"{'_'.join(parts[:4])}_*"
        made_up = len(parts) == 2 and all(part and _LOWER.issuperset(part) for part in parts)
        if not made_up or pod or self._subject.engine not in (None, "podman"):
            return name
        if self.narrow:
            return ""
        self.remarks.append(
            f'if podman made up the name "{name}", it makes up another one next time: start the '
            "container with --name and match that name"
        )
        return name


def _pairs(others: "Mapping[str, str]") -> "Iterator[str]":
    for key, value in others.items():
        yield f"{key}: {value}"


def literally(text: str) -> str:
    """A glob for `text` with "?" for each character that is special in YAML or in a glob.

    The requester may have chosen the text, and must not get a pattern into the policy with it.
    """
    plain = "".join("?" if one in '"\\*' or not " " <= one <= "~" else one for one in text)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}*"

"""From a container's annotations to a Request: the public interface's grammar.

Annotations are written by people and, under some engines, by people who mean
harm.  A key or an item that isn't understood is an error, never a guess: the
kernel ignores a misspelt mount option and so delegates less, or, with a number,
something else than was meant.  All problems are told at once.
"""

from ..bpf.names import ALL_BITS, KINDS
from ..errors import BAD_ANNOTATION, LISTED, USAGE, HookError, Problem, once, quote
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


PREFIX = "io.bpffs."
LISTS = tuple(kind.option for kind in KINDS)
PATH = "/sys/fs/bpf"
# bpf_fill_super() gives the root directory 0777 and the sticky bit.
MODE = 0o1777
KEYS = (*LISTS, "profile", "record", "path", "mode", "on_unknown")
# Annotations in which the engines that run pods say which container this is:
# CRI-O and podman's Kubernetes mode, then containerd.
_NAMES = ("io.kubernetes.container.name", "io.kubernetes.cri.container-name")
_PATH_MAX = 4096
_HEX = frozenset("0123456789abcdef")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
# As the policy's schema has it.
_PROFILE = _WORD | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.-")
_PROFILE_MAX = 63


class Request(Value):
    """What a container asks for, as written: which bits that is depends on the kernel.

    `lists` has the items, in lower case, of each `delegate_*` option that asks for something;
    `profiles` are the names of sets in the policy that are asked for as well.  With `record`, the
    name of a recording, it is all that the policy allows instead.
    """

    __slots__ = ("drop_unknown", "lists", "mode", "path", "profiles", "record")
    lists: "Mapping[str, tuple[str, ...]]"
    profiles: tuple[str, ...]
    record: str
    path: str
    mode: int
    drop_unknown: bool

    def annotations(self) -> dict[str, str]:
        """The annotations that ask for exactly this."""
        found = {PREFIX + key: ":".join(items) for key, items in self.lists.items()}
        if self.profiles:
            found[PREFIX + "profile"] = ":".join(self.profiles)
        if self.record:
            found[PREFIX + "record"] = self.record
        if self.path != PATH:
            found[PREFIX + "path"] = self.path
        if self.mode != MODE:
            found[PREFIX + "mode"] = f"{self.mode:04o}"
        if self.drop_unknown:
            found[PREFIX + "on_unknown"] = "drop"
        return found


class AnnotationError(HookError):
    """Annotations that are wrong; `rest` is the request without what is wrong in them."""

    def __init__(self, problems: "Iterable[Problem]", rest: Request) -> None:
        super().__init__(BAD_ANNOTATION, *problems)
        self.rest = rest


def asked(annotations: "Mapping[str, object]") -> bool:
    """Whether any of the `annotations` is ours."""
    return any(key.startswith(PREFIX) for key in annotations)


def container_name(annotations: "Mapping[str, str]") -> str | None:
    """The container's name as its engine put it among the `annotations`, or None."""
    for key in _NAMES:
        if key in annotations:
            return annotations[key]
    return None


def parse(
    annotations: "Mapping[str, str]", engine_name: "Callable[[], str | None]"
) -> Request | None:
    """The Request in `annotations`, or None where they ask for nothing.

    `engine_name` finds the container's name where the annotations don't have it; it is
    called only if a key of the form KEY/NAME needs it.  Raises HookError
    (AnnotationError) with every problem there is, and with what is left of the request.
    """
    problems: list[Problem] = []
    given = _given(annotations, engine_name, problems)
    lists: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        if kind.option in given:
            key, text = given[kind.option]
            items = _items(key, text, kind.what, problems)
            if items:
                lists[kind.option] = items
    request = Request(
        lists=lists,
        profiles=_profiles(*given["profile"], problems) if "profile" in given else (),
        record=_record(*given["record"], problems) if "record" in given else "",
        path=_path(*given["path"], problems) if "path" in given else PATH,
        mode=_mode(*given["mode"], problems) if "mode" in given else MODE,
        drop_unknown=_drop(*given["on_unknown"], problems) if "on_unknown" in given else False,
    )
    # A pod's other containers may be the ones that ask.
    bases = {key[len(PREFIX) :].partition("/")[0] for key in annotations if key.startswith(PREFIX)}
    if request.record and (lists or request.profiles):
        key = given["record"][0]
        text = (
            f"{quote(key)} delegates all that the policy allows: leave the lists and profiles out"
        )
        problems.append(Problem(text, key=key))
    if given and bases.isdisjoint((*LISTS, "profile", "record")):
        key = next(iter(given.values()))[0]
        text = (
            f"{quote(key)} alone delegates nothing: add {PREFIX}profile, or {PREFIX}delegate_cmds "
            "and what else is needed"
        )
        problems.append(Problem(text, key=key))
    if problems:
        raise AnnotationError(once(problems), request)
    return request if lists or request.profiles or request.record else None


def device(profile: str, path: str | None) -> Request:
    """What a CDI device asks for that has this `profile`, and `path` where it isn't PATH.

    Raises HookError (USAGE): these are a command line's.
    """
    problems: list[Problem] = []
    where = PATH if path is None else _path("--path", path, problems)
    if problems:
        raise HookError(USAGE, *problems)
    return Request(
        lists={}, profiles=(profile,), path=where, mode=MODE, drop_unknown=False, record=""
    )


def _given(
    annotations: "Mapping[str, str]",
    engine_name: "Callable[[], str | None]",
    problems: list[Problem],
) -> dict[str, tuple[str, str]]:
    """What applies to this container: known key -> (the key as written, its text)."""
    plain: dict[str, tuple[str, str]] = {}
    named: dict[str, tuple[str, str]] = {}
    name = container_name(annotations)
    unnamed = ""
    for key, text in annotations.items():
        if not key.startswith(PREFIX):
            continue
        base, slash, container = key[len(PREFIX) :].partition("/")
        if base not in KEYS:
            # Only the problems that are printed are worth a search.
            near = _nearest(base, slash + container) if len(problems) < LISTED else None
            problems.append(Problem(f"{quote(key)} is no key of ours", key=key, hint=near))
        elif slash and not container:
            problems.append(Problem(f"{quote(key)} names no container after its last /", key=key))
        elif not slash:
            plain[base] = (key, text)
        else:
            if name is None:
                name = engine_name() or ""
            if not name:
                unnamed = key
            elif name == container:
                named[base] = (key, text)
    if unnamed:
        text = f"{quote(unnamed)}: this engine doesn't tell the container's name"
        hint = f"leave {quote(unnamed[unnamed.index('/') :])} out"
        problems.append(Problem(text, key=unnamed, hint=hint))
    return plain | named


def _nearest(base: str, suffix: str) -> str:
    from difflib import get_close_matches  # Only a mistake pays for it.

    near = get_close_matches(base[:64].lower(), KEYS, n=1, cutoff=0.5)
    if near:
        return f"did you mean {quote(PREFIX + near[0] + suffix)}?"
    return f"there are {', '.join(KEYS)}"


def split(text: str) -> list[str]:
    """The items of a list: separated by commas, colons or white space, none empty."""
    return text.replace(",", " ").replace(":", " ").split()


def _items(key: str, text: str, what: str, problems: list[Problem]) -> tuple[str, ...]:
    items: dict[str, None] = {}
    wrong = len(problems)
    for written in split(text):
        item, problem = parse_item(written, what)
        if problem:
            problems.append(_wrong(key, written, problem.text, problem.hint))
        else:
            items[item] = None
    if items and len(problems) == wrong and all(item[0] == "!" for item in items):
        first = next(iter(items))
        text = f"{quote(key)}: there is nothing that {quote(first)} could take away from"
        hint = 'begin with "any" or with names'
        problems.append(Problem(text, key=key, item=first, hint=hint))
    return tuple(items)


def _wrong(key: str, item: str, why: str, hint: str | None = None) -> Problem:
    """That the `item` of the annotation `key` is what `why` says."""
    return Problem(f"{quote(key)}: {quote(item)} {why}", key=key, item=item, hint=hint)


def parse_item(written: str, what: str) -> tuple[str, Problem | None]:
    """The item as a Request has it, and what is wrong with it, to be said after its name."""
    # Some letters of other alphabets have an ASCII letter for their small one.
    item = written.lower() if written.isascii() else written
    taken = item.startswith("!")
    bare = item[1:] if taken else item
    if taken and bare == "any":
        return item, Problem("leaves nothing", hint="leave the whole annotation out")
    if bare.startswith("0x"):
        digits = bare[2:]
        if not digits or not _HEX.issuperset(digits):
            return item, Problem("is no hexadecimal mask", hint="write 0x and hexadecimal digits")
        digits = digits.lstrip("0")
        # Before the conversion: what is not a mask may be a megabyte of digits.
        if len(digits) > 16:
            last = f"the last is {ALL_BITS:#x}"
            return item, Problem("has bits beyond the 64 that a mask has", hint=last)
        return ("!" if taken else "") + f"{int(digits or '0', 16):#x}", None
    if bare.isdecimal():
        return item, Problem(
            f"is a decimal number, which the kernel takes for a mask, not for a {what}",
            hint="write the name, or a mask as 0x..",
        )
    if not bare or not _WORD.issuperset(bare):
        return item, Problem(f"is no name of a {what}")
    return item, None


def _profiles(key: str, text: str, problems: list[Problem]) -> tuple[str, ...]:
    names: list[str] = []
    for name in dict.fromkeys(split(text)):
        if not _PROFILE.issuperset(name) or len(name) > _PROFILE_MAX:
            problems.append(_wrong(key, name, "is no name of a profile"))
        else:
            names.append(name)
    return tuple(names)


def _record(key: str, text: str, problems: list[Problem]) -> str:
    name = text.strip()
    if not name or not _PROFILE.issuperset(name) or name[0] in ".-" or len(name) > _PROFILE_MAX:
        hint = "write letters, digits and _.-"
        problems.append(_wrong(key, name, "is no name of a recording", hint))
    return name


def _path(key: str, text: str, problems: list[Problem]) -> str:
    hint = None
    if not text.startswith("/"):
        problem, hint = "is no absolute path", "begin with /"
    elif not text.isprintable() or len(text.encode("utf-8", "surrogateescape")) >= _PATH_MAX:
        problem = "is no path of at most 4095 printable characters"
    elif ".." in text.split("/") or "." in text.split("/"):
        problem, hint = 'has "." or ".." in it', "write the path that is meant"
    elif not text.strip("/"):
        problem, hint = "is the container's root itself", "name a directory in it"
    else:
        return "/" + "/".join(part for part in text.split("/") if part)
    problems.append(_wrong(key, text, problem, hint))
    return PATH


def _mode(key: str, text: str, problems: list[Problem]) -> int:
    digits = text.strip()
    if 1 <= len(digits) <= 5 and not digits.strip("01234567") and int(digits, 8) <= 0o7777:
        return int(digits, 8)
    problems.append(_wrong(key, text, "is no octal mode", "write it as 0755 or 1777"))
    return MODE


def _drop(key: str, text: str, problems: list[Problem]) -> bool:
    word = text.strip().lower()
    if word not in ("fail", "drop"):
        problems.append(_wrong(key, text, 'is neither "fail" nor "drop"'))
    return word == "drop"

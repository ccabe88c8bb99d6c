"""Reads a container's annotations into a Request: the grammar of the public interface.

Annotations are written by people and, under some engines, by people who mean harm.  A key or an
item that isn't understood is an error and is never guessed, because nobody would notice a wrong
guess: the container would get less than its author meant, or something else.  All problems are
reported at once.
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
# The kernel's default for the root directory (Linux: kernel/bpf/inode.c, bpf_fill_super).
MODE = 0o1777
KEYS = (*LISTS, "profile", "record", "shim", "path", "mode", "on_unknown")
# The annotations in which engines that run pods put the container's name: first CRI-O's, which
# podman's Kubernetes mode uses too, then containerd's.
_NAMES = ("io.kubernetes.container.name", "io.kubernetes.cri.container-name")
_PATH_MAX = 4096
_HEX = frozenset("0123456789abcdef")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
# The same characters and length as in the policy's schema.
_PROFILE = _WORD | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.-")
_PROFILE_MAX = 63


class Request(Value):
    """What a container asks for, by name; which bits the names mean depends on the kernel.

    `lists` has the items, in lower case, of each `delegate_*` option that asks for something;
    `profiles` are the policy's profiles that are asked for as well, by name.  If `record`, the name
    of a recording, isn't empty, the container asks for all that the policy allows instead.  With
    `shim` its programs are to have the shim.  `path` and `mode` are those of the mount.  With
    `drop_unknown`, a name that only newer kernels have is left out and isn't an error.
    """

    __slots__ = ("drop_unknown", "lists", "mode", "path", "profiles", "record", "shim")
    lists: "Mapping[str, tuple[str, ...]]"
    profiles: tuple[str, ...]
    record: str
    shim: bool
    path: str
    mode: int
    drop_unknown: bool


class AnnotationError(HookError):
    """Some annotations are wrong; `rest` is the request that the correct parts make."""

    def __init__(self, problems: "Iterable[Problem]", rest: Request) -> None:
        super().__init__(BAD_ANNOTATION, *problems)
        self.rest = rest


def asked(annotations: "Mapping[str, object]") -> bool:
    """Whether any key of the `annotations` begins with io.bpffs."""
    return any(key.startswith(PREFIX) for key in annotations)


def container_name(annotations: "Mapping[str, str]") -> str | None:
    """The container's name that its engine has put into the `annotations`, or None."""
    for key in _NAMES:
        if key in annotations:
            return annotations[key]
    return None


def parse(
    annotations: "Mapping[str, str]", engine_name: "Callable[[], str | None]"
) -> Request | None:
    """The Request in `annotations`, or None if they ask for nothing.

    `engine_name` finds the container's name if the annotations don't have it; it is called only if
    there is a key of the form KEY/NAME.  Raises AnnotationError with all problems and with the
    request that the correct parts make.
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
        shim=_shim(*given["shim"], problems) if "shim" in given else False,
        path=_path(*given["path"], problems) if "path" in given else PATH,
        mode=_mode(*given["mode"], problems) if "mode" in given else MODE,
        drop_unknown=_drop(*given["on_unknown"], problems) if "on_unknown" in given else False,
    )
    # Keys for other containers count here: a plain path or mode applies to the whole pod, and
    # another container of the pod may be the one that asks.
    bases = {key[len(PREFIX) :].partition("/")[0] for key in annotations if key.startswith(PREFIX)}
    if request.record and (lists or request.profiles):
        key = given["record"][0]
        text = f"{quote(key)} already asks for all that the policy allows"
        hint = "leave out the lists and profiles"
        problems.append(Problem(text, key=key, hint=hint))
    if given and bases.isdisjoint((*LISTS, "profile", "record")):
        key = next(iter(given.values()))[0]
        text = f"{quote(key)} alone delegates nothing"
        hint = f"add {PREFIX}profile, or {PREFIX}delegate_cmds and the other lists that are needed"
        problems.append(Problem(text, key=key, hint=hint))
    if problems:
        raise AnnotationError(once(problems), request)
    return request if lists or request.profiles or request.record else None


def device(profile: str, path: str | None, shim: str | None = None) -> Request:
    """What a CDI device with this `profile` asks for, with the mount at `path`, by default at PATH.

    `shim` is the text of the device's option --shim, if it has one.  Raises HookError (USAGE) for a
    wrong path or text, because both come from a command line.
    """
    problems: list[Problem] = []
    where = PATH if path is None else _path("--path", path, problems)
    shimmed = shim is not None and _shim("--shim", shim, problems)
    if problems:
        raise HookError(USAGE, *problems)
    return Request(
        lists={},
        profiles=(profile,),
        record="",
        shim=shimmed,
        path=where,
        mode=MODE,
        drop_unknown=False,
    )


def _given(
    annotations: "Mapping[str, str]",
    engine_name: "Callable[[], str | None]",
    problems: list[Problem],
) -> dict[str, tuple[str, str]]:
    """The annotations for this container, by KEYS: each key as it is written, and its text."""
    plain: dict[str, tuple[str, str]] = {}
    named: dict[str, tuple[str, str]] = {}
    name = container_name(annotations)
    unnamed = ""
    for key, text in annotations.items():
        if not key.startswith(PREFIX):
            continue
        base, slash, container = key[len(PREFIX) :].partition("/")
        if base not in KEYS:
            # A search takes time, so it is made only for the problems that will be printed.
            near = _nearest(base, slash + container) if len(problems) < LISTED else None
            problems.append(Problem(f"{quote(key)} isn't a known key", key=key, hint=near))
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
        hint = f"leave out {quote(unnamed[unnamed.index('/') :])}"
        problems.append(Problem(text, key=unnamed, hint=hint))
    return plain | named


def _nearest(base: str, suffix: str) -> str:
    from ..similar import similar  # Only needed for a wrong key.

    near = similar(base, KEYS, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(quote(PREFIX + one + suffix) for one in near)}?"
    return f"the known keys are {', '.join(KEYS)}"


def split(text: str) -> list[str]:
    """The items of the list `text`, which commas, colons or white space separate; none is empty."""
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
        text = f"{quote(key)}: {quote(first)} takes away from a list that gives nothing"
        hint = 'begin with "any" or with names'
        problems.append(Problem(text, key=key, item=first, hint=hint))
    return tuple(items)


def _wrong(key: str, item: str, why: str, hint: str | None = None) -> Problem:
    """The problem that `why`, the rest of a sentence, states of `item` in the annotation `key`."""
    return Problem(f"{quote(key)}: {quote(item)} {why}", key=key, item=item, hint=hint)


def parse_item(written: str, what: str) -> tuple[str, Problem | None]:
    """The item that is `written`, in the form that a Request has, and the problem with it, or None.

    The problem's text is the rest of a sentence that begins with the item; `what` is the kind of
    name that the item should be.
    """
    # Only ASCII is made lower case: the lower case of the Kelvin sign, for one, is an ASCII k.
    item = written.lower() if written.isascii() else written
    taken = item.startswith("!")
    bare = item[1:] if taken else item
    if taken and bare == "any":
        return item, Problem("leaves nothing of the list", hint="leave out the whole list")
    if bare.startswith("0x"):
        digits = bare[2:]
        if not digits or not _HEX.issuperset(digits):
            return item, Problem("isn't a hexadecimal mask", hint="write 0x and hexadecimal digits")
        digits = digits.lstrip("0")
        # Checked before the conversion, which would take long for a megabyte of digits.
        if len(digits) > 16:
            largest = f"the largest mask is {ALL_BITS:#x}"
            return item, Problem("has more than the 64 bits of a mask", hint=largest)
        return ("!" if taken else "") + f"{int(digits or '0', 16):#x}", None
    if bare.isdecimal():
        return item, Problem(
            f"is a decimal number, which the kernel would take for a mask and not for a {what}",
            hint="write the name, or a mask as 0x..",
        )
    if not bare or not _WORD.issuperset(bare):
        return item, Problem(f"can't be the name of a {what}")
    return item, None


def _profiles(key: str, text: str, problems: list[Problem]) -> tuple[str, ...]:
    names: list[str] = []
    for name in dict.fromkeys(split(text)):
        if not _PROFILE.issuperset(name) or len(name) > _PROFILE_MAX:
            problems.append(_wrong(key, name, "can't be the name of a profile"))
        else:
            names.append(name)
    return tuple(names)


def _record(key: str, text: str, problems: list[Problem]) -> str:
    name = text.strip()
    if not name or not _PROFILE.issuperset(name) or name[0] in ".-" or len(name) > _PROFILE_MAX:
        hint = "write letters, digits and _.-"
        problems.append(_wrong(key, name, "can't be the name of a recording", hint))
    return name


def _shim(key: str, text: str, problems: list[Problem]) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false"):
        problems.append(_wrong(key, text, 'is neither "true" nor "false"'))
    return word == "true"


def _path(key: str, text: str, problems: list[Problem]) -> str:
    hint = None
    if not text.startswith("/"):
        problem, hint = "isn't an absolute path", "begin with /"
    elif not text.isprintable() or len(text.encode("utf-8", "surrogateescape")) >= _PATH_MAX:
        problem = "isn't a path of at most 4095 printable characters"
    elif ".." in text.split("/") or "." in text.split("/"):
        problem, hint = 'has "." or ".." in it', "write the path without them"
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
    problems.append(_wrong(key, text, "isn't an octal mode", "write it as 0755 or 1777"))
    return MODE


def _drop(key: str, text: str, problems: list[Problem]) -> bool:
    word = text.strip().lower()
    if word not in ("fail", "drop"):
        problems.append(_wrong(key, text, 'is neither "fail" nor "drop"'))
    return word == "drop"

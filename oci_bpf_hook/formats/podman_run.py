"""Reads command lines of `podman run` and `podman create` as podman itself does.

Options end at the first word that is none, which is the image; what follows is the program's own,
however much it looks like an option.  `docker run` and `docker create` have the same grammar.
"""

import csv
import re
from collections.abc import Iterator, Sequence

from ..values import Value
from . import engine_options

_PROGRAMS = ("podman", "podman-remote", "docker")
_SUBCOMMANDS = ("run", "create")
# What may stand before the program: a prompt, variables, and programs that run another.
_BEFORE = re.compile(
    r"[$#%]|\w+=.*|sudo|doas|env|exec|time|nohup|command|-\w+|--[\w-]+(=.*)?", re.DOTALL
)
# An annotation, as one of several in a value.
_KEY = re.compile(r"[\w./-]+=", re.ASCII)
# The shell's grammar, as far as it makes words of a line.
_SHELL = re.compile(
    r"(?P<joined>\\\n)|(?P<space>[ \t\r]+)|(?P<end>[;&|\n]+)|(?P<comment>\#[^\n]*)"
    r"|(?P<piece>'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|[^\s;&|'\"\\]+|\s)",
    re.DOTALL,
)
# What a backslash escapes between double quotes.
_ESCAPED = re.compile(r"\\([$`\"\\\n])")
_USER_NAMESPACE = ("userns", "uidmap", "subuidname")


class CommandError(ValueError):
    """The words aren't a command line of podman's."""


class Arguments(Value):
    """What a command line says about a container.

    `annotations`, `capabilities`, `name`, `image` and `user_namespace` are what a delegation is
    about; `others` are the names of all other options, each once and in their order, and `command`
    says whether the image is given a command.  `unknown` are options that no release known here
    has, without a value in the same word, so that nobody can say whether the next word is theirs.
    `split` are annotations that older releases of podman split at their commas.
    """

    __slots__ = (
        *("annotations", "capabilities", "command", "image", "name", "others", "split"),
        *("unknown", "user_namespace"),
    )
    annotations: dict[str, str]
    capabilities: list[str]
    name: str | None
    user_namespace: bool
    image: str | None
    command: bool
    others: tuple[str, ...]
    unknown: tuple[str, ...]
    split: tuple[str, ...]


def arguments(words: Sequence[str]) -> Arguments:
    """What the `words` after `podman run` say, or some of them: the image may be missing."""
    return _Reader(words).read()


def commands(text: str) -> Iterator[Arguments]:
    """What each `podman run` or `podman create` in the shell's `text` says.

    Other commands are passed over.  Raises CommandError, and ValueError for a quote that isn't
    closed.
    """
    others: list[str] = []
    found = False
    for words in _simple(text):
        rest = _after_program(words)
        if rest is None:
            others.append(words[0])
            continue
        found = True
        yield arguments(rest)
    if not found:
        what = f"it runs {others[0]}" if others else "it is empty"
        raise CommandError(f"this isn't a command line of podman run or podman create: {what}")


def _simple(text: str) -> Iterator[list[str]]:
    """The words of each simple command in `text`: lines, and what ; & and | separate."""
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        found = _SHELL.match(text, at)
        if not found:
            raise ValueError("a quote isn't closed, or nothing follows a backslash")
        at = found.end()
        piece = found[0]
        if found.lastgroup == "comment" and word is None:
            continue
        if found.lastgroup in ("space", "end"):
            words += [] if word is None else [word]
            word = None
            if found.lastgroup == "end" and words:
                yield words
                words = []
        elif found.lastgroup != "joined":
            word = (word or "") + _unquoted(piece)
    words += [] if word is None else [word]
    if words:
        yield words


def _unquoted(piece: str) -> str:
    if piece[0] == "'":
        return piece[1:-1]
    if piece[0] == '"':
        return _ESCAPED.sub(lambda found: found[1].removeprefix("\n"), piece[1:-1])
    return piece[1:] if piece[0] == "\\" else piece


def _after_program(words: Sequence[str]) -> list[str] | None:
    """The words after the subcommand of an engine; None if they run something else."""
    if words[0].startswith("--"):
        return list(words)  # The options alone, as advise prints them.
    rest = list(words)
    while rest and rest[0].rpartition("/")[2] not in _PROGRAMS:
        if not _BEFORE.fullmatch(rest.pop(0)):
            return None
    subcommand = _Reader(rest[1:], before=True).skip()
    if subcommand[:1] == ["container"]:
        subcommand = subcommand[1:]
    return subcommand[1:] if subcommand[:1] and subcommand[0] in _SUBCOMMANDS else None


class _Reader:
    """Options as pflag reads them: --name VALUE, --name=VALUE, and short ones in clusters."""

    def __init__(self, words: Sequence[str], *, before: bool = False) -> None:
        """`before` says that the words come before the subcommand."""
        self._words = list(words)
        own = (engine_options.FLAGS, engine_options.VALUED)
        everywhere = (engine_options.GLOBAL_FLAGS, engine_options.GLOBAL_VALUED)
        self._flags = everywhere[0] if before else own[0] | (everywhere[0] - own[1])
        self._valued = everywhere[1] if before else own[1] | (everywhere[1] - own[0])
        self._short = engine_options.GLOBAL_SHORT if before else engine_options.SHORT
        self.unknown: list[str] = []

    def skip(self) -> list[str]:
        """The words after all options."""
        for _ in self._options():
            pass
        return self._words

    def read(self) -> Arguments:
        annotations: dict[str, str] = {}
        capabilities: list[str] = []
        others: dict[str, None] = {}
        split: list[str] = []
        name: str | None = None
        own = rootfs = False
        for option, value in self._options():
            if option == "annotation":
                for item in _items(value):
                    key, _, text = item.partition("=")
                    annotations[key] = text
                    split += [key] if "," in text else []
            elif option == "cap-add":
                capabilities += filter(None, value.split(","))
            elif option == "name":
                name = value
            elif option in _USER_NAMESPACE:
                own = own or value not in ("", "host")
                others |= {} if value == "auto" else {f"--{option}": None}
            else:
                others[f"--{option}"] = None
            rootfs = rootfs or (option == "rootfs" and value != "false")
        image, command = (self._words[0] if self._words else None), self._words[1:]
        return Arguments(
            annotations=annotations,
            capabilities=capabilities,
            name=name,
            user_namespace=own,
            image=None if rootfs else image,
            command=bool(command),
            others=tuple(others),
            unknown=tuple(self.unknown),
            split=tuple(split),
        )

    def _options(self) -> Iterator[tuple[str, str]]:
        """Each option by its long name, with its value or "true"; stops before other words."""
        while self._words and self._words[0].startswith("-") and self._words[0] != "-":
            word = self._words.pop(0)
            if word == "--":
                return
            yield from self._long(word[2:]) if word.startswith("--") else self._cluster(word[1:])

    def _long(self, word: str) -> Iterator[tuple[str, str]]:
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif name in self._valued:
            yield name, self._next()
        else:
            if name not in self._flags:
                self.unknown.append(f"--{name}")
            yield name, "true"

    def _cluster(self, letters: str) -> Iterator[tuple[str, str]]:
        while letters:
            letter, letters = letters[0], letters[1:]
            name = self._short.get(letter)
            if name is None:
                self.unknown.append(f"-{letter}")
                return
            if letters.startswith("="):
                yield name, letters[1:]
                return
            if name in self._valued:
                yield name, letters or self._next()
                return
            yield name, "true"

    def _next(self) -> str:
        return self._words.pop(0) if self._words else ""


def _items(value: str) -> list[str]:
    """The annotations in one value.

    Up to podman 4 it is a line of CSV, and later it is one annotation.  What can be several is
    taken for several, so that a comma between a key's own items separates only these.
    """
    if "," not in value and not value.startswith('"'):
        return [value]
    try:
        items = next(csv.reader([value], strict=True), [value])
    except csv.Error:
        return [value]
    return items if all(_KEY.match(item) for item in items) else [value]

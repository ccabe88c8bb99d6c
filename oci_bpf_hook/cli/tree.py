"""Describes all commands with their arguments, for the man pages and completions."""

from collections.abc import Iterator

from ..values import Value
from .options.table import ENTRIES, Argument, Command, Entry

# The metavars of values that are files.
_FILES = ("FILE", "HEADER|RELEASE", "ONE OTHER", "PATH")
COMMAND = "command"
FILE = "file"
DIRECTORY = "directory"
KEY = "key"
TEXT = "text"


class Leaf(Value):
    """A command that can be run: the `words` that call it, and a description in paragraphs."""

    __slots__ = ("about", "command", "entry", "words")
    words: tuple[str, ...]
    entry: Entry
    command: Command
    about: str


def leaves() -> Iterator[Leaf]:
    """Every command that can be run; subcommands come one by one, without their command."""
    for entry in ENTRIES:
        for command in entry.load():
            alone = command.name == entry.name
            words = (entry.name,) if alone else (entry.name, command.name)
            about = entry.about() if alone else command.about
            yield Leaf(words=words, entry=entry, command=command, about=about)


def is_option(one: Argument) -> bool:
    """Whether the argument is an option, and not an operand."""
    return one.names[0].startswith("-")


def takes_value(one: Argument) -> bool:
    """Whether an option has a value after it."""
    return is_option(one) and one.settings.get("action") in (None, "append")


def repeats(one: Argument) -> bool:
    """Whether the option or operand may be given more than once."""
    return one.settings.get("action") == "append" or one.settings.get("nargs") in ("+", "*")


def choices(one: Argument) -> tuple[str, ...]:
    """The values that are allowed; () if any value is."""
    return tuple(map(str, one.settings.get("choices", ())))


def kind(one: Argument) -> str:
    """What the value is: COMMAND (one of ours), FILE, DIRECTORY, KEY (of an annotation) or TEXT."""
    if metavar(one) == "COMMAND":
        return COMMAND
    if metavar(one) in _FILES:
        return FILE
    if metavar(one) == "DIR":
        return DIRECTORY
    return KEY if one.names[0] == "--annotation" else TEXT


def metavar(one: Argument) -> str:
    """The word that stands for the value in usage texts."""
    if choices(one):
        return "|".join(choices(one))
    plain = one.names[-1].lstrip("-").replace("-", "_").upper()
    given = one.settings.get("metavar") or plain
    return given if isinstance(given, str) else " ".join(given)


def others(one: Argument, command: Command) -> tuple[str, ...]:
    """The options that can't be given together with this one."""
    return tuple(
        other.names[0]
        for other in command.arguments
        if one.exclusive and other.exclusive == one.exclusive and other is not one
    )


def synopsis(command: Command) -> Iterator[tuple[str, list[Argument]]]:
    """The groups of arguments in a synopsis, each with "[]" if it may be left out, else ""."""
    done: set[str] = set()
    for one in command.arguments:
        if not one.exclusive:
            operand = not is_option(one) and one.settings.get("nargs", "+") == "+"
            needed = operand or one.settings.get("required", False)
            yield "" if needed else "[]", [one]
        elif one.exclusive not in done:
            done.add(one.exclusive)
            group = [other for other in command.arguments if other.exclusive == one.exclusive]
            yield "" if one.required else "[]", group

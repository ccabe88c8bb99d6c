"""The table of commands: the parser is made of it, and so are man pages and completions.

A command's name and help stand here, so that `--help` imports no command; its options stand in
the module of its name, as ARGUMENTS beside the function `run`, or as COMMANDS where it has
commands of its own; ABOUT, where a module has it, is what its man page and `--help` say of it.
Nothing is imported here that `--help` alone would have to wait for.
"""

from importlib import import_module

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    Run: TypeAlias = Callable[[argparse.Namespace], int]


class Argument(Record):
    """An option or an operand: argparse's own names and settings for it.

    Of those with the same name in `exclusive` only one is taken; `required` then says whether
    one has to be there.
    """

    __slots__ = ("exclusive", "names", "required", "settings")
    names: tuple[str, ...]
    settings: "dict[str, Any]"
    exclusive: str
    required: bool


class Command(Record):
    """A command: what it takes, and what it does; its exit code is what `run` returns."""

    __slots__ = ("arguments", "help", "name", "run")
    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: "Run"


class Entry(Record):
    """A command by its `name` and its one line of `help`; what is behind it, `load` says."""

    __slots__ = ("aliases", "help", "name")
    name: str
    help: str
    aliases: tuple[str, ...]

    def load(self) -> tuple[Command, ...]:
        """The command itself, under its own name, or the commands that it has."""
        module = import_module(f".{self.name}", __package__)
        if hasattr(module, "COMMANDS"):
            commands: tuple[Command, ...] = module.COMMANDS
            return commands
        arguments: tuple[Argument, ...] = module.ARGUMENTS
        run: "Run" = module.run
        return (Command(name=self.name, help=self.help, arguments=arguments, run=run),)

    def about(self) -> str:
        """What the command is, in paragraphs; its help where its module doesn't say more."""
        text: str = getattr(import_module(f".{self.name}", __package__), "ABOUT", "")
        return text.strip() or f"{self.help[0].upper()}{self.help[1:]}."


def argument(
    *names: str, exclusive: str = "", one_of_them: bool = False, **settings: "Any"
) -> Argument:
    """An Argument with argparse's `settings`."""
    return Argument(names=names, settings=settings, exclusive=exclusive, required=one_of_them)


def entry(name: str, text: str, *aliases: str) -> Entry:
    return Entry(name=name, help=text, aliases=aliases)


ENTRIES = (
    entry("advise", "say which delegation a BPF program needs"),
    entry("broker", "be the service that delegates BPF for rootless engines"),
    entry("cdi", "make CDI devices of profiles, and look at them"),
    entry("check", "say whether a request would be granted, and what is doubtful"),
    entry("convert", "translate a delegation from or to Incus, LXD, systemd, manifests"),
    entry("delegate", "give a running container a delegation"),
    entry("doctor", "find out why BPF doesn't work, on the host or in a container"),
    entry("explain", "show what the hook would do, step by step"),
    entry("guard", "hold what confined tokens may do, by BPF LSM programs"),
    entry("hook", "be the OCI runtime hook: the state is on stdin"),
    entry("inject", "add the hook to a bundle's config.json, and take it away"),
    entry("inspect", "show which containers have a delegation", "ps"),
    entry("install", "put the hook where engines find it"),
    entry("kernel", "show the names that can be delegated, and the bits"),
    entry("lint", "say what is doubtful about a request"),
    entry("policy", "check, show and try the policy"),
    entry("record", "learn the delegation that a program needs while it runs"),
    entry("seccomp", "print the engine's seccomp profile with bpf(2) for CAP_BPF"),
    entry("uninstall", "take away what install has put there"),
)


def fill(parser: "argparse.ArgumentParser", arguments: "Iterable[Argument]") -> None:
    """Add `arguments` to `parser`."""
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for one in arguments:
        if not one.exclusive:
            parser.add_argument(*one.names, **one.settings)
            continue
        if one.exclusive not in groups:
            groups[one.exclusive] = parser.add_mutually_exclusive_group(required=one.required)
        groups[one.exclusive].add_argument(*one.names, **one.settings)


def add(parser: "argparse.ArgumentParser", one: Entry) -> None:
    """Make `parser` the one of `one`, whose module this imports."""
    found = one.load()
    parser.description = one.about()
    if [command.name for command in found] == [one.name]:
        fill(parser, found[0].arguments)
        parser.set_defaults(run=found[0].run)
        return
    below = parser.add_subparsers(metavar="COMMAND", required=True, dest="below")
    for command in found:
        inner = below.add_parser(command.name, help=command.help, description=command.help)
        fill(inner, command.arguments)
        inner.set_defaults(run=command.run)

"""The table of commands, from which the parser, the man pages and the completions are made.

Each command's name and one line of help are here, so that `--help` imports no command.  The rest is
in the module of its name: ARGUMENTS and the function `run`, or COMMANDS if it has subcommands,
and ABOUT, the description in its man page, of which its `--help` prints the first paragraph.
Imports here would make `--help` slower.
"""

from importlib import import_module

from ...values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    Run: TypeAlias = Callable[[argparse.Namespace], int]


class Argument(Value):
    """An option or an operand, with argparse's names and settings for it.

    Of the arguments with the same `exclusive` only one may be given; `required` says whether one of
    them has to be.
    """

    __slots__ = ("exclusive", "names", "required", "settings")
    names: tuple[str, ...]
    settings: "dict[str, Any]"
    exclusive: str
    required: bool


class Command(Value):
    """A command: the arguments that it takes, and `run`, which returns its exit code."""

    __slots__ = ("arguments", "help", "name", "run")
    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: "Run"

    @property
    def about(self) -> str:
        """Its help as a sentence."""
        return f"{self.help[0].upper()}{self.help[1:]}."


# The package with a module for each command.
_COMMANDS = f"{__package__.rpartition('.')[0]}.commands"


class Entry(Value):
    """The entry of a command: its `name` and its one line of `help`; `load` imports the rest.

    `group` is one of GROUPS, and `section` is the manual's section that has its page.
    """

    __slots__ = ("aliases", "group", "help", "name", "section")
    name: str
    help: str
    group: str
    section: int
    aliases: tuple[str, ...]

    def load(self) -> tuple[Command, ...]:
        """The command itself, or its subcommands."""
        module = import_module(f"{_COMMANDS}.{self.name}")
        if hasattr(module, "COMMANDS"):
            commands: tuple[Command, ...] = module.COMMANDS
            return commands
        arguments: tuple[Argument, ...] = module.ARGUMENTS
        run: "Run" = module.run
        return (Command(name=self.name, help=self.help, arguments=arguments, run=run),)

    def about(self) -> str:
        """What the command does, in paragraphs."""
        text: str = import_module(f"{_COMMANDS}.{self.name}").ABOUT
        return text.strip()

    @property
    def page(self) -> str:
        """The name of its man page."""
        return f"oci-bpf-hook-{self.name}"


def argument(
    *names: str, exclusive: str = "", one_of_them: bool = False, **settings: "Any"
) -> Argument:
    """An Argument with argparse's `settings`."""
    return Argument(names=names, settings=settings, exclusive=exclusive, required=one_of_them)


def entry(name: str, text: str, group: str, *aliases: str, section: int = 1) -> Entry:
    """An Entry with the help `text`."""
    return Entry(name=name, help=text, group=group, section=section, aliases=aliases)


ASK = "ask"
DECIDE = "decide"
FIND_OUT = "find out"
RUN = "run"
GROUPS = {
    ASK: "what a program needs, and how to write that down",
    DECIDE: "what the policy grants",
    FIND_OUT: "what there is, and what is wrong",
    RUN: "put the hook in place, and delegate",
}
# The manual's section for system administration, with the commands that root runs.
_ROOT = 8
ENTRIES = (
    entry("advise", "say which delegation a compiled BPF program needs", ASK),
    entry("broker", "run the service that delegates BPF for rootless engines", RUN, section=_ROOT),
    entry("cdi", "make CDI devices from profiles, list and check them", DECIDE, section=_ROOT),
    entry("check", "say whether a request would be granted, and what is doubtful", DECIDE),
    entry("convert", "translate a delegation between formats, such as Incus and podman", ASK),
    entry("delegate", "give a running container a delegation, or revoke it", RUN, section=_ROOT),
    entry("doctor", "find out why BPF doesn't work, on the host or in a container", FIND_OUT),
    entry("explain", "show what the hook would do, step by step", DECIDE),
    entry("guard", "confine what BPF tokens can do, with BPF LSM programs", RUN, section=_ROOT),
    entry("help", "show the help of a command", FIND_OUT),
    entry("hook", "run as the OCI runtime hook, with a state on stdin", RUN, section=_ROOT),
    entry("inject", "add the hook to a bundle's config.json, or remove it", RUN),
    entry("inspect", "show which containers have a delegation", FIND_OUT, "ps"),
    entry("install", "install the hook where engines find it", RUN, section=_ROOT),
    entry("kernel", "show the names that a kernel can delegate, and their bits", FIND_OUT),
    entry("lint", "warn of what is doubtful about a request", ASK),
    entry("nri", "run the NRI plugin, which delegates BPF to pods", RUN, section=_ROOT),
    entry("policy", "check the policy, show it, and try a request against it", DECIDE),
    entry("record", "learn which delegation a program needs while it runs", ASK),
    entry("seccomp", "print the engine's seccomp profile, with bpf(2) for CAP_BPF", RUN),
    entry("uninstall", "remove what install put in place", RUN, section=_ROOT),
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
    """Add the arguments of the command `one`, whose module this imports, to `parser`."""
    found = one.load()
    # --help is brief; the man page has the other paragraphs.
    parser.description = one.about().partition("\n\n")[0]
    parser.epilog = f"More, with examples: man {one.page}"
    if [command.name for command in found] == [one.name]:
        fill(parser, found[0].arguments)
        parser.set_defaults(run=found[0].run)
        return
    below = parser.add_subparsers(metavar="COMMAND", required=True, dest="below")
    for command in found:
        inner = below.add_parser(
            command.name,
            help=command.help,
            description=command.about,
            epilog=parser.epilog,
            formatter_class=parser.formatter_class,
        )
        fill(inner, command.arguments)
        inner.set_defaults(run=command.run)

"""Writes the man pages from the tables, the commands' own texts, and `manual_texts`."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .. import __version__
from ..delegation.annotations import KEYS, PREFIX
from ..errors import EXITS
from ..policy.origin import ENGINE, origin
from ..policy.subject import ENGINES
from ..resources import resource
from ..values import Value
from . import manual_examples, manual_texts
from .main import PROGRAM, SUMMARY
from .options.table import ENTRIES, GROUPS, Argument, Command, Entry
from .roff import bold, escaped, filled, italic, literally, see, tagged, wrapped
from .tree import Leaf, is_option, leaves, metavar, repeats, synopsis, takes_value

# The date of the last change to the pages' texts.
_DATE = "2026-11-30"
_TITLES = {1: "User Commands", 5: "File Formats", 8: "System Administration"}
_MAIN = (PROGRAM, 1)
_POLICY = (f"{PROGRAM}-policy", 5)


class Page(Value):
    """A man page: its name and section, one line of text, and a function that writes the rest."""

    __slots__ = ("body", "name", "section", "summary")
    name: str
    section: int
    summary: str
    body: Callable[[], Iterator[str]]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.{self.section}"

    def render(self) -> str:
        """The page as groff and mandoc read it."""
        title = f'{self.section} {_DATE} "{PROGRAM} {__version__}" "{_TITLES[self.section]}"'
        head = (
            '.\\" Made by contrib/generate-docs from the tables and texts in oci_bpf_hook.',
            f".TH {self.name.upper()} {title}",
            # No hyphens are added, so that names of options and files can be copied.
            ".nh",
            ".ad l",
            ".SH NAME",
            *wrapped(f"{self.name} \\- {escaped(self.summary)}"),
        )
        return "\n".join((*head, *self.body())) + "\n"


# --------------------------------------------------------------------- oci-bpf-hook(1)


def _main_page() -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield f"{bold(PROGRAM)} {italic('COMMAND')} ..."
    yield ".SH DESCRIPTION"
    yield from filled(f"{SUMMARY} {manual_texts.MAIN}")
    yield ".SH COMMANDS"
    for group, about in GROUPS.items():
        yield f'.SS "{group[0].upper()}{group[1:]}: {about}"'
        those = [one for one in ENTRIES if one.group == group]
        yield from _list({f"{one.page}({one.section})": _sentence(one.help) for one in those})
    yield ".SH ANNOTATIONS"
    yield from _list({f"{PREFIX}{key}": manual_texts.ANNOTATIONS[key] for key in KEYS})
    yield ".PP"
    yield from filled(manual_texts.ITEMS)
    yield ".SH EXIT STATUS"
    yield from _list({str(code): f"{text}." for code, text in EXITS.items()})
    yield ".PP"
    yield from filled("A request with both bad annotations and unknown names ends with 10.")
    yield ".SH ENVIRONMENT"
    yield from _list({"NO_COLOR": "If this is set, output on a terminal has no colours."})
    yield ".SH FILES"
    yield from _list(manual_texts.FILES)
    yield from _examples(PROGRAM)
    yield ".SH SEE ALSO"
    yield see((_POLICY, ("oci-hooks", 5), ("podman-run", 1), ("bpf", 2)))


# --------------------------------------------------------------------- a page a command


def _command_page(one: Entry) -> Iterator[str]:
    those = [leaf for leaf in leaves() if leaf.entry.name == one.name]
    yield ".SH SYNOPSIS"
    for number, leaf in enumerate(those):
        if number:
            yield ".br"
        yield from _invocation(leaf)
    yield ".SH DESCRIPTION"
    yield from filled(one.about())
    if len(those[0].words) > 1:
        yield ".SH COMMANDS"
        for leaf in those:
            yield f".SS {leaf.command.name}"
            yield from filled(leaf.about)
            yield from _options(leaf.command)
    else:
        yield ".SH OPTIONS"
        yield from _options(those[0].command)
    for title, body in manual_texts.SECTIONS.get(one.name, {}).items():
        yield f".SH {title}"
        yield from filled(body) if isinstance(body, str) else _list(body)
    yield ".SH EXIT STATUS"
    yield from filled(manual_texts.EXIT_STATUS.get(one.name, manual_texts.ANY_EXIT_STATUS))
    yield from _examples(one.name)
    yield ".SH SEE ALSO"
    yield see((_MAIN, *_related(one)))


def _related(one: Entry) -> Iterator[tuple[str, int]]:
    pages = {other.name: (other.page, other.section) for other in ENTRIES}
    for name in manual_texts.RELATED[one.name]:
        yield pages[name] if isinstance(name, str) else name


def _invocation(leaf: Leaf) -> Iterator[str]:
    words = []
    for brackets, group in synopsis(leaf.command):
        text = " | ".join(f"{_argument(one)}{' ...' * repeats(one)}" for one in group)
        if brackets:
            text = f"[{text}]"
        elif len(group) > 1:
            text = f"{{{text}}}"
        words.append(text)
    yield from wrapped(" ".join((bold(f"{PROGRAM} {' '.join(leaf.words)}"), *words)))


def _argument(one: Argument) -> str:
    """An argument as it is written, in bold and italics."""
    value = italic(metavar(one))
    if not is_option(one):
        return value
    if one.settings.get("nargs") == "?":
        value = f"[{value}]"
    return f"{bold(one.names[0])} {value}" if takes_value(one) else bold(one.names[0])


def _options(command: Command) -> Iterator[str]:
    for one in command.arguments:
        yield from tagged(_argument(one), _sentence(str(one.settings["help"])))


def _examples(name: str) -> Iterator[str]:
    yield ".SH EXAMPLES"
    yield from filled(manual_examples.EXAMPLES[name])


def _list(body: dict[str, str]) -> Iterator[str]:
    """A list of short texts without blank lines between them."""
    yield ".PD 0"
    for tag, text in body.items():
        yield from _tagged(tag, text)
    yield ".PD"


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield from tagged(bold(tag), text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --------------------------------------------------------------------- oci-bpf-hook-policy(5)


def _policy_page() -> Iterator[str]:
    schema: dict[str, Any] = json.loads((resource("schema") / "policy.schema.json").read_bytes())
    rule = schema["properties"]["rules"]["items"]["properties"]
    profile = schema["properties"]["profiles"]["additionalProperties"]["properties"]
    yield ".SH DESCRIPTION"
    yield from filled(manual_texts.POLICY)
    yield ".SH CONFINED GRANTS"
    yield from filled(manual_texts.CONFINED)
    yield ".SH KEYS"
    yield from _keys(schema["properties"])
    yield ".SS audit"
    yield from _keys(schema["properties"]["audit"]["properties"])
    yield ".SS A profile"
    yield from _keys(profile)
    yield ".SS A rule"
    yield from _keys(rule)
    yield ".SS match"
    yield from filled(manual_texts.MATCH)
    for key, value in schema["$defs"]["match"]["properties"].items():
        yield from _tagged(key, f"{value['description']} Set by {_set_by(key)}.")
    yield ".SS allow"
    yield from _keys(schema["$defs"]["allow"]["properties"])
    yield ".SH EXAMPLES"
    yield from literally(manual_examples.POLICY)
    yield ".SH FILES"
    yield from _list(manual_texts.POLICY_FILES)
    yield ".SH SEE ALSO"
    yield see((_MAIN, *((one.page, one.section) for one in ENTRIES if one.name == "policy")))


def _keys(properties: dict[str, dict[str, Any]]) -> Iterator[str]:
    for key, value in properties.items():
        yield from _tagged(key, value["description"])


def _set_by(key: str) -> str:
    engines = [engine for engine in ENGINES if origin(key, engine) == ENGINE]
    if engines:
        return f"the engine under {', '.join(engines)}"
    return f"the {origin(key, None)}"


PAGES = (
    Page(
        name=PROGRAM,
        section=1,
        summary="BPF tokens for OCI containers in user namespaces",
        body=_main_page,
    ),
    *(
        Page(name=one.page, section=one.section, summary=one.help, body=partial(_command_page, one))
        for one in ENTRIES
    ),
    Page(
        name=f"{PROGRAM}-policy",
        section=5,
        summary="the file that says who may have which BPF delegation",
        body=_policy_page,
    ),
)

"""The man pages, in the macros of man(7): what the tables say, and the words around it."""

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from . import __version__, manualtexts, policy
from .annotations import KEYS, MODE, PATH, PREFIX
from .cli import PROGRAM, SUMMARY
from .client import SOCKET
from .commands.table import Argument, Command
from .commands.tree import (
    Leaf,
    is_option,
    leaves,
    metavar,
    paragraphs,
    repeats,
    synopsis,
    takes_value,
)
from .errors import EXITS
from .lsm.load import PINS
from .policycache import ETC
from .policyfile import AUDIT_TO
from .record import Record
from .resources import resource

# Of the last change to what is said here.
_DATE = "2026-11-30"
_LIST = "items separated by commas, colons or white space"
_ANNOTATIONS = {
    "delegate_cmds": f"Commands; {_LIST}.",
    "delegate_maps": "Map types, likewise.",
    "delegate_progs": "Program types, likewise.",
    "delegate_attachs": "Attach types, likewise.",
    "profile": "Names of sets in the policy, which are added to the lists.",
    "record": "A name: all that the policy allows, for a container that is recorded; see record.",
    "path": f"Where to mount it in the container; default {PATH}. Missing directories are made, "
    "but in no volume.",
    "mode": f"Octal mode of its root directory; default {MODE:o}.",
    "on_unknown": "fail (default), or drop for names that only newer kernels have.",
}
_ITEMS = """
An item, in any case, is a kernel's name (`prog_load`, `BPF_PROG_LOAD`, or as systemd spells it,
`BPFProgLoad`), `any`, a hexadecimal mask (`0x21`), or one of these after a `!`, to take it away
again. KEY/NAME is for the container NAME alone, and wins over KEY. Any other key that begins with
io.bpffs. and every unknown name is an error, and the container isn't started.
"""
_EXAMPLES = (
    (
        "A container that may load XDP programs, if the policy lets it:",
        "podman run --userns=auto --cap-add BPF,NET_ADMIN --annotation io.bpffs.profile=xdp IMAGE",
    ),
    ("Whether a pod would get what it asks for:", "oci-bpf-hook check --file pod.yaml"),
    (
        "What the hook would do for a request:",
        "oci-bpf-hook explain --annotation io.bpffs.profile=xdp",
    ),
    ("What this kernel has that 6.12 hasn't:", "oci-bpf-hook kernel --diff 6.12"),
    (
        "An Incus instance's delegation for podman:",
        "incus config show web | oci-bpf-hook convert --from incus --to podman",
    ),
)
_SIGNALS = {
    "SIGHUP": "Read the policy again, whether its file looks changed or not.",
    "SIGTERM, SIGINT": "Take nothing more on, finish what has begun, and end.",
}
_EXAMPLE_POLICY = """\
version: 1
engine: cri-o
profiles:
  counters:
    delegate_cmds: [map_create, prog_load, btf_load]
    delegate_maps: [array, percpu_array]
    delegate_progs: [socket_filter, xdp]
    delegate_attachs: [cgroup_inet_ingress]
rules:
  - name: monitoring
    match: {namespace: monitoring, image: "registry.example/agent*"}
    allow: {profiles: [counters], paths: [/sys/fs/bpf]}
  - name: nobody-else
    deny: ask the platform team"""


class Page(Record):
    """A man page: its name, section and the section's title, one line of text, and the rest."""

    __slots__ = ("body", "name", "section", "summary", "title")
    name: str
    section: int
    title: str
    summary: str
    body: Callable[[], Iterator[str]]

    @property
    def file(self) -> str:
        return f"{self.name}.{self.section}"

    def render(self) -> str:
        """The page as groff and mandoc read it."""
        title = f'{self.section} {_DATE} "{PROGRAM} {__version__}" "{self.title}"'
        head = (
            '.\\" Made by contrib/generate-docs; what it says stands in oci_bpf_hook.',
            f".TH {self.name.upper()} {title}",
            # Names of options and files are to be copied as they are.
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{self.name} \\- {_text(self.summary)}",
        )
        return "\n".join((*head, *self.body())) + "\n"


# --------------------------------------------------------------------- oci-bpf-hook(1)


def _command_page() -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield f"\\fB{_dashes(PROGRAM)}\\fP \\fICOMMAND\\fP ..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(
        f"{SUMMARY} The hook mounts a bpffs with the delegate_* options that a container's "
        "annotations ask for and the policy allows; this command tells what a request means, "
        "before and after."
    )
    yield ".SH COMMANDS"
    for leaf in leaves():
        yield from _leaf(leaf)
    yield from _annotations()
    yield ".SH THE GUARD"
    (about,) = {leaf.entry.about() for leaf in leaves() if leaf.words[0] == "guard"}
    yield from _paragraphs(about)
    yield ".SH EXIT STATUS"
    for code, text in EXITS.items():
        yield from _tagged(str(code), f"{text}.")
    yield ".PP"
    yield from _paragraphs("A request with bad annotations and unknown names ends with 10.")
    yield ".SH ENVIRONMENT"
    yield from _tagged("NO_COLOR", "No colour on a terminal, if it is set to anything.")
    yield from _files()
    yield ".SH EXAMPLES"
    for number, (text, command) in enumerate(_EXAMPLES):
        if number:
            yield ".PP"
        yield from _paragraphs(text)
        yield from _literally(command)
    yield ".SH SEE ALSO"
    yield _see((f"{PROGRAM}-policy", 5), ("oci-hooks", 5), ("podman-run", 1), ("bpf", 2))


def _leaf(leaf: Leaf) -> Iterator[str]:
    name = _dashes(" ".join(leaf.words))
    yield f".SS {name}"
    yield from _wrapped(f"\\fB{_dashes(PROGRAM)} {name}\\fP {_synopsis(leaf.command)}".rstrip())
    yield ".PP"
    yield from _paragraphs(leaf.about)
    yield from _options(leaf.command)


def _synopsis(command: Command) -> str:
    words = []
    for brackets, group in synopsis(command):
        text = " | ".join(f"{_invocation(one)}{' ...' * repeats(one)}" for one in group)
        if brackets:
            text = f"[{text}]"
        elif len(group) > 1:
            text = f"{{{text}}}"
        words.append(text)
    return " ".join(words)


def _invocation(one: Argument) -> str:
    """An argument as it is written, in bold and italics."""
    value = f"\\fI{_dashes(metavar(one))}\\fP"
    if not is_option(one):
        return value
    name = f"\\fB{_dashes(one.names[0])}\\fP"
    return f"{name} {value}" if takes_value(one) else name


def _annotations() -> Iterator[str]:
    yield ".SH ANNOTATIONS"
    for key in KEYS:
        yield from _tagged(f"{PREFIX}{key}", _ANNOTATIONS[key])
    yield ".PP"
    yield from _paragraphs(_ITEMS)


def _files() -> Iterator[str]:
    yield ".SH FILES"
    yield from _tagged(ETC, "The policy, oci-bpf-hook-policy(5).")
    yield from _tagged(
        AUDIT_TO, "A line of JSON for each decision, unless the policy says otherwise."
    )
    yield from _tagged(PINS, "Where the guard is pinned, which so outlives whoever loads it.")
    yield from _tagged(
        "/usr/share/containers/oci/hooks.d", "Where podman and CRI-O look for the hook's JSON."
    )
    yield from _tagged(
        "/usr/share/containers/oci/precreate.d",
        "Where podman looks for that of its own stage, if containers.conf(5) says so.",
    )


# --------------------------------------------------------------------- oci-bpf-hook-policy(5)


def _policy_page() -> Iterator[str]:
    schema: dict[str, Any] = json.loads((resource("schema") / "policy.schema.json").read_bytes())
    rule = schema["properties"]["rules"]["items"]["properties"]
    profile = schema["properties"]["profiles"]["additionalProperties"]["properties"]
    yield ".SH DESCRIPTION"
    yield from _paragraphs(manualtexts.POLICY)
    yield ".SH CONFINED GRANTS"
    yield from _paragraphs(manualtexts.CONFINED)
    yield ".SH KEYS"
    yield from _keys(schema["properties"])
    yield ".SS audit"
    yield from _keys(schema["properties"]["audit"]["properties"])
    yield ".SS A profile"
    yield from _keys(profile)
    yield ".SS A rule"
    yield from _keys(rule)
    yield ".SS match"
    yield from _paragraphs(
        "Values are globs, one or a list of them. What a rule may match is worth as much as "
        "whoever set it: where it says so below, --engine or engine: makes the engine that, and "
        "it is the requester's word otherwise. `oci-bpf-hook policy check` warns of a rule that "
        "allows something on the requester's word alone."
    )
    for key, value in schema["$defs"]["match"]["properties"].items():
        yield from _tagged(key, f"{value['description']} Set by {_set_by(key)}.")
    yield ".SS allow"
    yield from _keys(schema["$defs"]["allow"]["properties"])
    yield ".SH EXAMPLES"
    yield from _literally(_EXAMPLE_POLICY)
    yield from _files()
    yield ".SH SEE ALSO"
    yield _see((PROGRAM, 1))


# --------------------------------------------------------------------- oci-bpf-hook-broker(8)


def _broker_page() -> Iterator[str]:
    (leaf,) = (one for one in leaves() if one.words == ("broker",))
    yield ".SH SYNOPSIS"
    yield from _wrapped(f"\\fB{_dashes(PROGRAM)} broker\\fP {_synopsis(leaf.command)}")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(manualtexts.BROKER)
    yield ".SH OPTIONS"
    yield from _options(leaf.command)
    yield ".SH WHO ASKS"
    yield from _paragraphs(manualtexts.WHO_ASKS)
    yield ".SH LIMITS"
    yield from _paragraphs(manualtexts.LIMITS)
    yield ".SH SIGNALS"
    for name, text in _SIGNALS.items():
        yield from _tagged(name, text)
    yield ".SH ENVIRONMENT"
    yield from _tagged(
        "LISTEN_FDS, LISTEN_PID", "One socket that listens, from systemd, in place of its own."
    )
    yield from _tagged("NOTIFY_SOCKET", "Where it says that it is ready, and that it ends.")
    yield from _files()
    yield from _tagged(SOCKET, "Where it listens and the hook asks.")
    yield ".SH SEE ALSO"
    yield _see((PROGRAM, 1), (f"{PROGRAM}-policy", 5), ("systemd.socket", 5), ("subuid", 5))


def _options(command: Command) -> Iterator[str]:
    for one in command.arguments:
        text = str(one.settings["help"])
        yield from _tagged(_invocation(one), f"{text[0].upper()}{text[1:]}.", escaped=True)


def _keys(properties: dict[str, dict[str, Any]]) -> Iterator[str]:
    for key, value in properties.items():
        yield from _tagged(key, value["description"])


def _set_by(key: str) -> str:
    engines = [engine for engine in policy.ENGINES if policy.origin(key, engine) == policy.ENGINE]
    if engines:
        return f"the engine under {', '.join(engines)}"
    return f"the {policy.origin(key, None)}"


PAGES = (
    Page(
        name=PROGRAM,
        section=1,
        title="User Commands",
        summary="BPF tokens for OCI containers in user namespaces",
        body=_command_page,
    ),
    Page(
        name=f"{PROGRAM}-policy",
        section=5,
        title="File Formats",
        summary="who may have which BPF delegation",
        body=_policy_page,
    ),
    Page(
        name=f"{PROGRAM}-broker",
        section=8,
        title="System Administration",
        summary="delegates BPF for rootless engines",
        body=_broker_page,
    ),
)

# --------------------------------------------------------------------- man(7)


def _text(text: str) -> str:
    """Text in which nothing is a request or an escape of roff's; `words` become bold."""
    plain = text.replace("\\", "\\e")
    plain = re.sub(r"`([^`]+)`", lambda match: f"\\fB{_dashes(match[1])}\\fP", plain)
    return re.sub(r"(?<![\w\\-])--(?=\w)", r"\\-\\-", plain)


def _dashes(text: str) -> str:
    """Text whose dashes are to be copied and pasted."""
    return text.replace("-", "\\-")


def _wrapped(line: str) -> Iterator[str]:
    """`line`, which roff fills anyway, in lines that people can read."""
    for part in textwrap.wrap(line, 78, break_long_words=False, break_on_hyphens=False):
        yield re.sub(r"^([.'])", r"\\&\1", part)


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs(text)):
        if number:
            yield ".PP"
        yield from _sentences(paragraph)


def _sentences(text: str) -> Iterator[str]:
    # Each begins a line, as roff wants it.
    for sentence in re.split(r"(?<=[.:;]) (?=[A-Z`])", text):
        yield from _wrapped(_text(sentence))


def _see(*pages: tuple[str, int]) -> str:
    return " ,\n".join(f".BR {_dashes(name)} ({section})" for name, section in pages)


def _tagged(tag: str, text: str, *, escaped: bool = False) -> Iterator[str]:
    yield ".TP"
    yield tag if escaped else f"\\fB{_dashes(tag)}\\fP"
    yield from _sentences(text)


def _literally(text: str) -> Iterator[str]:
    yield ".RS 4"
    yield ".nf"
    yield from (_dashes(line.replace("\\", "\\e")) for line in text.split("\n"))
    yield ".fi"
    yield ".RE"

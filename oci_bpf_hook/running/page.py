"""Writes the delegations of a host as one HTML page, for a security review.

It has a row for each container and a column for each type that any container has, coloured by how
far the type reaches.  The page loads no other file and runs no script, and everything in it that
people chose is escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..bpf.names import Enum
from ..bpf.type_facts import CGROUP, HOST, NETWORK, OWN, reach
from .delegations import CONFINED, Delegation, names

_TITLES = {
    "delegate_cmds": "commands",
    "delegate_progs": "program types",
    "delegate_maps": "map types",
    "delegate_attachs": "attach types",
}
# The order of the columns: what a reader looks for first comes first.
_ORDER = ("delegate_progs", "delegate_maps", "delegate_attachs", "delegate_cmds")
_WORDS = {
    OWN: ("own", "reaches only the container itself"),
    NETWORK: (
        "shared",
        "reaches the host's network or cgroups, which the container or its user shares",
    ),
    HOST: ("host", "reaches the whole kernel, because nothing confines these programs"),
}
_MARKS = {OWN: "●", NETWORK: "▲", HOST: "■"}
_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --head: #f6f8fa; --back: #fff; --text: #1f2328;
  --faint: #59636e; --own: #dafbe1; --own-text: #116329; --shared: #ffe8b3; --shared-text: #6f4400;
  --host: #ffd7d5; --host-text: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --head: #151b23; --back: #0d1117;
  --text: #f0f6fc; --faint: #9198a1; --own: #12361f; --own-text: #7ee2a0; --shared: #4a3200;
  --shared-text: #ffd98a; --host: #5a1e20; --host-text: #ffb3ad; } }
* { box-sizing: border-box; }
body { margin: 2rem; font: 15px/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--back); }
h1 { font-size: 1.4rem; margin: 0; }
p { margin: .25rem 0 1rem; color: var(--faint); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px;
  width: fit-content; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; }
th, td { border-right: 1px solid var(--line); border-bottom: 1px solid var(--line);
  padding: .4rem .6rem; text-align: left; vertical-align: top; }
thead th { background: var(--head); font-weight: 600; }
tr > :last-child { border-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
.group { text-align: center; vertical-align: middle; }
.type { vertical-align: bottom; text-align: center; padding: .5rem .2rem; min-width: 1.9rem; }
.type span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap;
  font: 12px ui-monospace, monospace; }
.name { position: sticky; left: 0; background: var(--head); min-width: 11rem; z-index: 1; }
.name small, .faint { color: var(--faint); font-weight: 400; display: block; }
.cell { text-align: center; vertical-align: middle; padding: .2rem; }
.own { background: var(--own); color: var(--own-text); }
.shared { background: var(--shared); color: var(--shared-text); }
.host { background: var(--host); color: var(--host-text); }
.legend { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; padding: 0; margin: 0 0 1rem;
  list-style: none; }
.legend b { display: inline-block; width: 1.7rem; text-align: center; margin-right: .5rem;
  border-radius: 3px; }
.warnings { min-width: 18rem; }
.warnings div + div { margin-top: .4rem; }
"""


def page(
    delegations: Sequence[Delegation], enums: Mapping[str, Enum], *, host: str, time: str
) -> str:
    """The HTML of the page about the `delegations` of `host` at `time`, to be encoded in UTF-8."""
    title = f"BPF delegations on {_text(host)}"
    columns = _columns(delegations, enums)
    body = [
        f"<h1>{title}</h1>",
        f"<p>{_count(len(delegations))}, {_text(time)}</p>",
        _legend(),
    ]
    if delegations:
        rows = "".join(_row(one, columns, enums) for one in delegations)
        body.append(
            f'<div class="scroll"><table>{_head(columns)}<tbody>{rows}</tbody></table></div>'
        )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _text(text: str) -> str:
    """`text` for HTML, with an escape for each character that isn't printable."""
    plain = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
    return escape(plain)


def _count(number: int) -> str:
    if not number:
        return "no container has a delegation"
    return "1 delegation" if number == 1 else f"{number} delegations"


def _columns(
    delegations: Iterable[Delegation], enums: Mapping[str, Enum]
) -> list[tuple[str, list[str]]]:
    """The names that any container has, by option; options that no container has are left out."""
    found = []
    for option in _ORDER:
        mask = 0
        for one in delegations:
            mask |= one.masks.get(option, 0)
        if had := names(mask, enums[option]):
            found.append((option, had))
    return found


def _legend() -> str:
    items = "".join(
        f'<li><b class="{style}">{_MARKS[kind]}</b>{words}</li>'
        for kind, (style, words) in _WORDS.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _head(columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    groups = "".join(
        f'<th class="group" scope="colgroup" colspan="{len(had)}">{_TITLES[option]}</th>'
        for option, had in columns
    )
    types = "".join(
        f'<th class="type" scope="col"><span>{_text(name)}</span></th>'
        for _, had in columns
        for name in had
    )
    return (
        '<thead><tr><th class="name" rowspan="2" scope="col">container</th>'
        '<th rowspan="2" scope="col">path</th><th rowspan="2" scope="col">owner</th>'
        '<th rowspan="2" scope="col">rule</th><th rowspan="2" scope="col">confined</th>'
        '<th class="warnings" rowspan="2" scope="col">warnings</th>'
        f"{groups}</tr><tr>{types}</tr></thead>"
    )


def _row(
    one: Delegation, columns: Sequence[tuple[str, Sequence[str]]], enums: Mapping[str, Enum]
) -> str:
    container = one.container
    pid = f"pid {container.pid}"
    said = (container.engine, pid if pid != container.label else None, container.image)
    about = ", ".join(filter(None, said))
    cells = "".join(
        _cell(one, option, name, enums[option]) for option, had in columns for name in had
    )
    warnings = "".join(f"<div>{_text(str(notice))}</div>" for notice in one.warnings)
    return (
        f'<tr><th class="name" scope="row">{_text(container.label)}'
        f"<small>{_text(about)}</small></th>"
        f"<td>{_text(one.path or '?')}</td><td>{_text(one.owner_name)}</td>"
        f"<td>{_text(one.rule or '?')}</td><td>{CONFINED[one.confined]}</td>"
        f'<td class="warnings">{warnings or "<span class=faint>none</span>"}</td>{cells}</tr>\n'
    )


def _cell(one: Delegation, option: str, name: str, enum: Enum) -> str:
    if not one.masks.get(option, 0) >> enum.values[name] & 1:
        return '<td class="cell"></td>'
    kind = _reach(one, option, name)
    style, words = _WORDS[kind]
    label = f"{_text(name)}: {words}"
    return (
        f'<td class="cell {style}" title="{label}">'
        f'<span role="img" aria-label="{label}">{_MARKS[kind]}</span></td>'
    )


def _reach(one: Delegation, option: str, name: str) -> str:
    """How far the type reaches from this container, given the namespaces that it shares."""
    kind = reach(option, name, confined=bool(one.confined))
    if kind == NETWORK:
        return NETWORK if one.host_network else OWN
    if kind == CGROUP:
        return NETWORK if one.host_cgroup else OWN
    return kind

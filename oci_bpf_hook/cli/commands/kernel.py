"""`oci-bpf-hook kernel` shows the names that a kernel can delegate, and what each can do."""

import argparse
from pathlib import Path
from typing import Any

from ...bpf.names import CMDS, KINDS, MAPS, PROGS, Kind
from ...bpf.type_facts import HOST, TOKEN_SINCE, reach, why
from ...errors import DONE, KERNEL_CANNOT, HookError
from ...kernel import enums as kernel
from ...kernel.releases import FIRST, Source, of_enums, of_release, release
from ..options import kernel as kernel_options
from ..options.output import FAINT, HEAD, JSON, OK, WARNING, Output, Piece, print_json, styled
from ..options.table import argument

ABOUT = """
Shows the names in the four enums that BPF delegation uses. For each name it prints the value, which
is the number of its bit; the release of Linux that added it; whether delegating it makes a
difference; and for program types, what a program of that type can reach.

Only four commands use a token, and delegating any other does nothing. Map types are used with
map_create, program types and attach types with prog_load.

REACH is what a program of that type can act on if the grant is confined: a process's own sockets,
or everything in the container's network namespace or cgroup, which are its own unless it shares the
host's. A type that reaches the host, which is the kernel that everybody shares, is never given to a
confined token. If the grant isn't confined, programs of every type reach the host.
"""
ARGUMENTS = (
    *kernel_options.ARGUMENTS,
    argument(
        *("--table",),
        action="store_true",
        help="all kernels, from the table of this program",
        exclusive="source",
    ),
    argument(
        *("--diff",),
        metavar="HEADER|RELEASE",
        help="show only the names that this kernel or the other one lacks",
    ),
    JSON,
)
_REACHES = {"network": "its network namespace", "cgroup": "its cgroup", "own": "its own sockets"}


def run(options: argparse.Namespace) -> int:
    shown = _shown(options)
    rows = _rows(shown)
    if options.diff:
        return _diff(rows, _rows(_other(options.diff)), options)
    if options.json:
        print_json({"kernel": shown.name, **rows})
        return DONE
    out = Output()
    for kind in KINDS:
        out.line(styled(HEAD, kind.option), f" (enum {kind.enum})")
        out.table(_titles(kind), [_cells(kind, row) for row in rows[kind.option]])
        out.line("")
    return DONE


def _shown(options: argparse.Namespace) -> Source:
    if options.table:
        return of_enums("all kernels", kernel.table().enums(KINDS))
    if not (options.kernel or options.header or options.btf):
        try:
            kernel.from_btf(KINDS)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            why = "has no BTF" if missing else "has BTF in which the names can't be read"
            raise HookError(
                KERNEL_CANNOT, f"this kernel {why} ({error}); try --kernel, --header or --table"
            ) from None
    return kernel_options.source(options)


def _other(text: str) -> Source:
    """What --diff names: a release, or else a header."""
    if release(text) and not Path(text).exists():
        return of_release(text)
    return of_enums(text, kernel.from_header(KINDS, text))


def _rows(shown: Source) -> dict[str, list[dict[str, Any]]]:
    """The enums by their option, as JSON has them, with a row for each name."""
    table = kernel.table()
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        known = table.enum(kind).values
        rows[kind.option] = [
            {
                "name": name,
                "value": value,
                "since": table.since(kind, name) if name in known else None,
                "token": _token(kind, name, shown.release),
                "reach": reach(kind.option, name, confined=True),
            }
            for name, value in shown.enums[kind.option].values.items()
        ]
    return rows


def _token(kind: Kind, name: str, release: tuple[int, int] | None) -> bool:
    """Whether delegating `name` makes a difference on that `release`, or if None on any."""
    if kind is not CMDS:
        return True
    since = TOKEN_SINCE.get(name)
    return since is not None and (release is None or since <= release)


def _titles(kind: Kind) -> tuple[str, ...]:
    return ("VALUE", "NAME", "SINCE", "TOKEN", *(("REACH",) if kind is PROGS else ()))


def _cells(kind: Kind, row: dict[str, Any]) -> tuple[Piece, ...]:
    name = row["name"]
    since = "by 6.9" if row["since"] == "6.9" else row["since"] or "?"
    token: Piece = styled(OK, "yes") if row["token"] else styled(FAINT, "no")
    if kind is not CMDS:
        token = "with map_create" if kind is MAPS else "with prog_load"
    elif row["token"] and TOKEN_SINCE[name] > FIRST:
        token = styled(OK, "yes, since {}.{}".format(*TOKEN_SINCE[name]))
    cells = (str(row["value"]), name, since, token)
    return (*cells, _reach(row)) if kind is PROGS else cells


def _reach(row: dict[str, Any]) -> Piece:
    if row["name"] == "unspec":
        return "-"
    if row["reach"] != HOST:
        return _REACHES[row["reach"]]
    return styled(WARNING, f"host: {why(row['name'])}")


def _diff(
    here: dict[str, list[dict[str, Any]]],
    there: dict[str, list[dict[str, Any]]],
    options: argparse.Namespace,
) -> int:
    """Print the names that only one of the two kernels has."""
    found: dict[str, dict[str, list[str]]] = {}
    for option, rows in here.items():
        ours = {row["name"] for row in rows}
        theirs = {row["name"] for row in there[option]}
        found[option] = {
            "only_here": [row["name"] for row in rows if row["name"] not in theirs],
            "only_there": [row["name"] for row in there[option] if row["name"] not in ours],
        }
    if options.json:
        print_json(found)
        return DONE
    since = {
        (option, row["name"]): row["since"]
        for rows in (here, there)
        for option, entries in rows.items()
        for row in entries
    }
    out = Output()
    for option, names in found.items():
        for key, sign in (("only_there", "+"), ("only_here", "-")):
            for name in names[key]:
                style = OK if sign == "+" else WARNING
                release = since[option, name]
                out.line(styled(style, f"{sign} {option} {name}"), f"  since {release or '?'}")
    if not any(names[key] for names in found.values() for key in names):
        out.line("both kernels have the same names")
    return DONE

"""Finds what objects need, each alone and all together, from what is in them.

They are looked at together, because one object's bits change what the loader makes of another:
libbpf's first probe uses whichever of two types is delegated, and its probe for attach types
succeeds as soon as any object's cgroup programs are delegated.
"""

from collections.abc import Collection, Iterator, Sequence

from ..bpf.btf_types import struct_members
from ..bpf.capabilities import PERFMON_HELPERS
from ..bpf.names import ATTACHS, MAPS, PROGS
from ..values import Value
from . import calls, cautions, feature_probes, sections
from .kernel import Kernel
from .maps import ARENA_MAP, VARIABLES, Map
from .needs import (
    BTF,
    CAPABILITY,
    DATA,
    MAP,
    NOTHING,
    PROBE,
    PROGRAM,
    Caution,
    Needs,
    Reason,
    make,
    union,
)
from .objects import Object, Program
from .pointers import takes_perfmon
from .sections import AYA, LIBBPF, OPTIONAL, USDT, ZERO


class Options(Value):
    """How the objects are loaded: by `loader`, one of sections.LOADERS.

    `libbpf` is a release of libbpf, or None for all releases.  `exact` keeps optional attach types.
    `only` names the programs that are loaded, and is empty for all of them; `skip` names those that
    aren't loaded.  `machine` is uname(2)'s name for the machine that loads them.
    """

    __slots__ = ("exact", "libbpf", "loader", "machine", "only", "skip")
    loader: str
    libbpf: str | None
    exact: bool
    only: frozenset[str]
    skip: frozenset[str]
    machine: str

    def on(self, machine: str) -> "Options":
        """The same options, on `machine`."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return Options(**known | {"machine": machine})


DEFAULTS = Options(
    loader=LIBBPF,
    libbpf=None,
    exact=False,
    only=frozenset(),
    skip=frozenset(),
    machine="x86_64",
)


class _Loaded(Value):
    """A program that is loaded: `attach` is None if unknown, `declared` is set if optional."""

    __slots__ = ("attach", "declared", "prog", "program", "why")
    program: Program
    prog: str
    attach: str | None
    declared: str | None
    why: str


class _Object(Value):
    """An object, and what is loaded of it."""

    __slots__ = ("found", "loaded")
    found: Object
    loaded: tuple[_Loaded, ...]


def advise(
    objects: Sequence[Object], options: Options, kernel: Kernel, given: Needs = NOTHING
) -> Needs:
    """What `objects` need, and with it what is `given`, which is delegated in any case."""
    loads = [
        _Object(found=found, loaded=tuple(_loaded(found, options, kernel))) for found in objects
    ]
    shares = [_fixed(one, options, kernel) for one in loads]
    if options.loader == LIBBPF:
        declared = _takes_attach_types(union((given, *shares)), loads, options)
        shares = [
            share | _optional(one, declared=declared, probe=options.exact)
            for one, share in zip(loads, shares, strict=True)
        ]
        everybody = _progs(union((given, *shares)))
        shares = [
            share | _first(one.found, _progs(share), everybody, options)
            for one, share in zip(loads, shares, strict=True)
        ]
    progs = _progs(union((given, *shares)))
    warnings: list[Caution] = []
    for one, share in zip(loads, shares, strict=True):
        programs = tuple((each.program, each.prog, each.attach) for each in one.loaded)
        unwanted = frozenset(each.name for each in one.found.programs if not _wanted(each, options))
        loaded = cautions.Loads(found=one.found, programs=programs, unwanted=unwanted)
        warnings += cautions.find(loaded, share, options.loader, kernel)
        warnings += _left_out(one, progs, options)
    return union((given, *shares, make(reasons=(), warnings=warnings)))


def _loaded(found: Object, options: Options, kernel: Kernel) -> Iterator[_Loaded]:
    """The programs that a loader loads, with what it knows about them."""
    unused = _unused_operations(found)
    for program in found.programs:
        off = not program.autoload and options.loader != sections.CILIUM
        if not _wanted(program, options) or (off and program.name not in options.only):
            continue
        row = sections.find(program.section, options.loader)
        if row is None or (program.name in unused and program.name not in options.only):
            continue
        why = f'program {program.name}, SEC("{program.section}")'
        attach = row.attach
        if row.flag == USDT and options.loader == LIBBPF:
            attach, why = "trace_uprobe_multi", f"{why}, which is otherwise attached by perf events"
        if attach is None:
            for attach, member in _members(found, program, kernel):
                yield _Loaded(
                    program=program,
                    prog=row.prog,
                    attach=attach,
                    declared=None,
                    why=f"{why}, {member}",
                )
            continue
        yield _Loaded(
            program=program,
            prog=row.prog,
            attach=None if row.flag == OPTIONAL else attach,
            declared=attach if row.flag == OPTIONAL else None,
            why=why,
        )


def _wanted(program: Program, options: Options) -> bool:
    named = not options.only or program.name in options.only
    return named and program.name not in options.skip


def _unused_operations(found: Object) -> set[str]:
    # libbpf doesn't load the programs of a struct_ops map that it doesn't make.
    off = {name for ops in found.operations if not ops.autocreate for name in ops.programs.values()}
    return off - {
        name for ops in found.operations if ops.autocreate for name in ops.programs.values()
    }


def _members(found: Object, program: Program, kernel: Kernel) -> Iterator[tuple[str, str]]:
    """The attach types of a struct_ops program: its members' numbers in the kernel's structs."""
    attachs = kernel.names[ATTACHS.option].names
    for ops in found.operations:
        members = struct_members(kernel.btf, ops.struct) if kernel.btf is not None else None
        for member, name in ops.programs.items():
            if name != program.name or not members or member not in members:
                continue
            number = members.index(member)
            if number in attachs:
                yield attachs[number], f"member {number} of struct {ops.struct}, {member}"


def _fixed(one: _Object, options: Options, kernel: Kernel) -> Needs:
    """What an object needs, whatever other objects there are."""
    found = one.found
    reasons: list[Reason] = []
    for each in one.loaded:
        if each.attach is not None:
            reasons += _program(found, each, each.attach)
        reasons += _more(found, each, options)
    for a_map in found.maps:
        reasons += _map(found, a_map, kernel)
    for ops in found.operations:
        if ops.autocreate:
            why = f"struct_ops map {ops.name} (struct {ops.struct})"
            reasons += calls.map_create("struct_ops", source=found.source, kind=MAP, why=why)
    if found.jump_tables:
        why = "jump tables"
        reasons += calls.map_create("insn_array", source=found.source, kind=MAP, why=why)
    if _takes_btf(one):
        why = "the types of its maps and programs"
        reasons += calls.btf_load(source=found.source, kind=BTF, why=why)
    asked = feature_probes.asked(
        options.loader,
        variables=any(a_map.kind == VARIABLES for a_map in found.maps),
        explained=found.explained,
        reads=bool(_readers(one)) and not _read_alike(one, options),
        externs=found.externs,
    )
    parts = [make(reasons=reasons, warnings=())]
    parts += [_probe(found, probe) for probe in asked]
    return union(parts)


def _readers(one: _Object) -> list[_Loaded]:
    """The programs that read memory by one of the helpers that loaders probe for."""
    return [each for each in one.loaded if feature_probes.READS & each.program.helpers]


def _read_alike(one: _Object, options: Options) -> bool:
    return feature_probes.read_alike((each.prog for each in _readers(one)), options.machine)


def _left_out(one: _Object, progs: Collection[str], options: Options) -> Iterator[Caution]:
    """What is said of the loader's probe for these helpers if it isn't among the `progs`."""
    names = list(dict.fromkeys(each.program.name for each in _readers(one)))
    if names and options.loader != AYA and _read_alike(one, options):
        prog, text = feature_probes.left_out(options.loader, names)
        if prog not in progs:
            yield Caution(code=feature_probes.LEFT_OUT, source=one.found.source, text=text)


def _program(found: Object, one: _Loaded, attach: str) -> tuple[Reason, ...]:
    return calls.prog_load(one.prog, attach, source=found.source, kind=PROGRAM, why=one.why)


def _more(found: Object, one: _Loaded, options: Options) -> Iterator[Reason]:
    """What a program needs besides its types."""

    def capability(name: str, why: str) -> Reason:
        return Reason(
            option=CAPABILITY,
            name=name,
            source=found.source,
            kind=PROGRAM,
            why=f"program {one.program.name} {why}",
        )

    if one.program.helpers & PERFMON_HELPERS:
        yield capability("perfmon", "prints, or reads memory of the kernel or of processes")
    arithmetic = takes_perfmon(one.program.code, found.order, one.prog)
    if arithmetic:
        yield capability("perfmon", arithmetic)
    if any(a_map.type == ARENA_MAP for a_map in found.maps):
        yield capability("perfmon", "may use an arena")
    if one.prog == "cgroup_skb":
        yield capability("net_admin", "is attached to a cgroup")
    if one.prog == "ext" and options.libbpf not in ("1.4", "1.5"):
        why = f"{one.why}, which takes the types of the program that it is for"
        yield from calls.btf_get_fd_by_id(source=found.source, kind=PROGRAM, why=why)


def _map(found: Object, a_map: Map, kernel: Kernel) -> Iterator[Reason]:
    if a_map.kind == VARIABLES:
        kind, why = DATA, f"the variables in {a_map.name}"
    else:
        kind, why = MAP, f"map {a_map.name}"
    name = kernel.names[MAPS.option].names.get(a_map.type)
    if name:
        yield from calls.map_create(name, source=found.source, kind=kind, why=why)
    if a_map.inner:
        yield from _map(found, a_map.inner, kernel)


def _takes_btf(one: _Object) -> bool:
    found = one.found
    if not found.btf:
        return False
    made = found.operations or any(a_map.btf for a_map in found.maps)
    return bool(made) or (found.explained and bool(one.loaded))


def _takes_attach_types(fixed: Needs, loads: Sequence[_Object], options: Options) -> bool:
    """Whether libbpf will find that the kernel takes attach types."""
    loaded = [each for one in loads for each in one.loaded]
    if options.exact and any(each.declared not in (None, ZERO) for each in loaded):
        return True
    probe = feature_probes.ATTACH_TYPES
    progs = {each.prog for each in loaded} | _progs(fixed)
    return probe.prog in progs and (ATTACHS.option, probe.attach) in fixed.bits


def _optional(one: _Object, *, declared: bool, probe: bool) -> Needs:
    """What programs with an optional attach type need, and the `probe` if it is made for them."""
    reasons: list[Reason] = []
    probed = False
    for each in one.loaded:
        if each.declared is None:
            continue
        if declared or each.declared == ZERO:
            reasons += _program(one.found, each, each.declared)
            probed = probed or each.declared != ZERO
        else:
            why = f"{each.why}, whose attach type {each.declared} is optional"
            reasons += calls.prog_load(
                each.prog, ZERO, source=one.found.source, kind=PROGRAM, why=why
            )
    needs = make(reasons=reasons, warnings=())
    return needs | _probe(one.found, feature_probes.ATTACH_TYPES) if probed and probe else needs


def _first(
    found: Object, own: Collection[str], everybody: Collection[str], options: Options
) -> Needs:
    """libbpf's first probe: one that the object's own needs cover, or else another object's."""
    probe = feature_probes.first(options.libbpf, own, everybody)
    return _probe(found, probe) if probe else NOTHING


def _progs(needs: Needs) -> set[str]:
    return {one.name for one in needs.reasons if one.option == PROGS.option}


def _probe(found: Object, probe: feature_probes.Probe) -> Needs:
    of = {"source": found.source, "kind": PROBE, "why": probe.why}
    reasons = [*calls.prog_load(probe.prog, probe.attach, **of)]
    for map_type in probe.maps:
        reasons += calls.map_create(map_type, **of)
    return make(reasons=reasons, warnings=())

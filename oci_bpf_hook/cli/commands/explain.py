"""`oci-bpf-hook explain` shows what the hook would do, step by step, and the result."""

import argparse
import json
from typing import Any

from ...bpf.names import KINDS
from ...delegation.masks import show
from ...delegation.written import written
from ...errors import BAD_STATE, EXITS, HookError
from ...formats.container import Asker
from ...formats.content import Source
from ...hook.plan import CREATE_CONTAINER, CREATE_RUNTIME, Step, mount_line, steps
from ...oci.state import check, find_rootfs
from ...policy.origin import KERNEL, OF_USERS
from ...text.strict_json import load_json
from ..options import policy as policy_options
from ..options import request, trial
from ..options.output import FAINT, HEAD, JSON, OK, PROBLEM, Output, print_json, styled
from ..options.table import argument
from ..options.trials import try_out
from .check import confinement, finding_as_json, nothing, print_findings

ABOUT = """
Shows what the hook would do for a request, and does nothing. It prints who asks and who says so,
the rule of the policy that decides, the masks, each system call of the two halves, and the line
that `mount -t bpf` will show in the container.

--state replays the state of a real container, as an engine gave it to the hook. If the bundle of
that container is gone, --config names a copy of its config.json.
"""
ARGUMENTS = (
    *trial.ARGUMENTS,
    argument(
        *("--config",),
        metavar="FILE",
        help="the bundle's config.json for --state, if the bundle is gone",
    ),
    JSON,
)
_ROOT = "ROOTFS"
_NOT_GIVEN = "the container's root filesystem, by the bundle's config.json"


def run(options: argparse.Namespace) -> int:
    given = trial.setting(options)
    if options.state:
        askers: tuple[Asker, ...] = (_of_state(options),)
        source = Source(name="", lines=(), others=(), parts=())
    else:
        askers, source = trial.askers(options, given.engine)
    trials = tuple(try_out(one, given, source.lines) for one in askers)
    code = trial.exit_code(trials)
    if options.json:
        print_json({"code": code, "containers": [_as_json(one, given, source) for one in trials]})
    else:
        out = Output()
        for one in trials:
            _print(out, one, given, source)
        if not trials:
            out.line(nothing(source))
    return code


def _of_state(options: argparse.Namespace) -> Asker:
    """The container of the state, with what its bundle says.  Raises HookError."""
    from ...formats import oci

    data = request.read_state(options.state)
    state = check(data)
    (one,) = oci.read_state(data, {}, options.state)
    fields = {name: getattr(one, name) for name in Asker.__slots__}
    path = options.config or f"{state.bundle}/config.json"
    try:
        config = load_json(request.read(path))
        (known,) = oci.read_config(config, {}, path)
        for name in (
            *("masked", "means", "owner", "remounted", "root"),
            "subject",
            "user_namespace",
        ):
            fields[name] = getattr(known, name)
    except ValueError as error:
        if options.config:
            raise HookError(BAD_STATE, f"{path}: this isn't JSON: {error}") from None
    except HookError:
        if options.config:
            raise
    try:
        fields["root"] = find_rootfs(state).path
    except HookError:  # The bundle is gone, or on another host.
        pass
    return Asker(**fields)


def _attributes(one: trial.Trial, given: trial.Setting) -> dict[str, dict[str, object]]:
    """What a rule may match: by key, the value, who sets it, and whether it is only assumed."""
    known = {"engine"} | one.asker.subject.keys() | given.attributes.keys()
    if one.subject.rootless:
        known |= {*OF_USERS}
    return {
        key: {
            **entry,
            "assumed": (key not in known and entry["set_by"] == KERNEL)
            or (key in one.asker.forms and key not in given.attributes),
        }
        for key, entry in sorted(policy_options.shown(one.subject).items())
    }


def _plan(one: trial.Trial) -> tuple[Step, ...]:
    """The steps of the hook; none if nothing is granted."""
    if one.decision is None or one.code:
        return ()
    broker = one.subject.by_broker()
    return steps(
        one.decision.grant, one.asker.root or _ROOT, one.enums, stage=_stage(one), broker=broker
    )


def _stage(one: trial.Trial) -> str:
    return CREATE_CONTAINER if one.asker.inside else CREATE_RUNTIME


def _as_json(one: trial.Trial, given: trial.Setting, source: Source) -> dict[str, Any]:
    granted = one.decision.grant if one.decision and not one.code else None
    return {
        "name": one.asker.name,
        "code": one.code,
        "requested": written(one.request) if one.request else None,
        "attributes": _attributes(one, given),
        "rule": one.rule,
        "depends_on": one.depends or None,
        "confined": one.decision.confined if one.decision else None,
        "masks": {
            option: {"mask": f"{mask:#x}", "names": show(mask, one.enums[option])}
            for option, mask in (granted.masks if granted else {}).items()
        },
        "stage": _stage(one),
        "authority": "broker" if one.subject.by_broker() else "direct",
        "steps": [{"half": step.half, "call": step.call, "why": step.why} for step in _plan(one)],
        "mount": mount_line(granted, one.enums, one.asker.owner) if granted else None,
        "findings": [finding_as_json(finding, source) for finding in one.findings],
    }


def _print(out: Output, one: trial.Trial, given: trial.Setting, source: Source) -> None:
    out.line(styled(HEAD, one.asker.name))
    if one.request is None and not one.code:
        out.line("  asks for nothing")
        print_findings(out, source, (one,))
        return
    for key, text in (written(one.request) if one.request else {}).items():
        out.line(f"  {key}={text}")
    out.line(styled(HEAD, "who asks"))
    rows = [
        (f"  {key}", _value(entry), str(entry["set_by"]))
        for key, entry in _attributes(one, given).items()
        if entry["value"] is not None
    ]
    out.table(("  ATTRIBUTE", "VALUE", "SET BY"), rows)
    out.line(styled(HEAD, "the policy"))
    if one.rule:
        verdict = styled(PROBLEM, "refuses") if one.code else styled(OK, "grants")
        out.line(f"  rule {one.rule} ", verdict)
        if one.decision and not one.code:
            out.line("  ", confinement(one.decision))
    print_findings(out, source, (one,))
    if one.code:
        why = EXITS[one.code]
        out.line(styled(PROBLEM, f"exit code {one.code}"), f": {why}; the container isn't started")
        return
    if one.decision is None:
        out.line("  nothing is granted: nothing is left of what was asked for")
        return
    _print_plan(out, one)


def _value(entry: dict[str, object]) -> str:
    value = entry["value"]
    text = (
        " ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
        if isinstance(value, str)
        else json.dumps(value)
    )
    return f"{text} (assumed)" if entry["assumed"] else text


def _print_plan(out: Output, one: trial.Trial) -> None:
    assert one.decision
    grant = one.decision.grant
    out.line(styled(HEAD, "the masks"))
    for kind in KINDS:
        mask = grant.masks.get(kind.option)
        if mask:
            out.line(
                f"  {kind.option}: {mask:#x} ", styled(FAINT, show(mask, one.enums[kind.option]))
            )
    halves = "the hook is the host half, and a child of it the container half"
    if one.subject.by_broker():
        halves = "the hook is the container half, and the broker the host half"
    out.line(styled(HEAD, "the steps"), f" at {_stage(one)}; {halves}")
    if one.asker.root is None:
        out.line(f"  {_ROOT} is {_NOT_GIVEN}")
    plan = _plan(one)
    width = max(len(step.half) for step in plan)
    for number, step in enumerate(plan, 1):
        out.line(f"  {number:2} {step.half:{width}} {step.call}")
        out.line(" " * (width + 6), styled(FAINT, step.why))
    out.line(styled(HEAD, "the result"), ", by mount -t bpf in the container")
    if one.asker.owner is None:
        out.line("  UID and GID are the host's ids of the container's root")
    out.line(f"  {mount_line(grant, one.enums, one.asker.owner)}")

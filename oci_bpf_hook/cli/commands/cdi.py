"""`oci-bpf-hook cdi` makes CDI devices of the policy's profiles, for any engine's `--device`."""

import argparse
import json
import stat
import sys
from pathlib import Path
from typing import Any

from ...bpf.names import CMDS
from ...bpf.type_facts import beyond_confined
from ...delegation.annotations import PATH, device
from ...delegation.masks import show
from ...delegation.suggestions import no_profile
from ...errors import BAD_STATE, DONE, UNKNOWN_NAME, USAGE, HookError, Problem, quote
from ...install import layout, steps
from ...oci import cdi
from ...pipeline.case import Case
from ...policy.compiled import Compiled
from ...policy.decide import Decision
from ...policy.subject import ENGINES
from ...policy.subjects import of_description
from ...text.strict_json import load_json
from ..options import hook as hook_options
from ..options import policy as policy_options
from ..options import request
from ..options.output import FAINT, JSON, OK, PROBLEM, Output, print_json, styled
from ..options.table import Command, argument

ABOUT = """
Makes CDI devices from the profiles of the policy, so that the option --device of any engine can ask
for a profile, and shows and checks what such devices grant.

Whoever may use such a device gets what its profile has, confined. Once the policy has a rule with
the key cdi in its match, such rules alone decide about devices.
"""
_DEFAULT = f"{cdi.DIRECTORY}/{cdi.FILE}"
_POLICY = policy_options.ARGUMENTS[0]
_ENGINE = argument(
    *("--engine",),
    choices=ENGINES,
    help="the engine that runs the hook, for the policy's rules",
)
_FILE = argument(
    *("file",),
    nargs="?",
    default=_DEFAULT,
    metavar="FILE",
    help=f"the CDI file (default: {_DEFAULT})",
)


def _generate(options: argparse.Namespace) -> int:
    compiled = policy_options.read_policy(options.policy)
    names, left_out, where = _asked(options, compiled)
    data = cdi.spec(
        names,
        hook_options.hook(options.hook),
        engine=options.engine,
        path=where,
        library=_shim(options) if options.shim else None,
    )
    text = json.dumps(data, indent=4) + "\n"
    for name in left_out:
        print(
            f"oci-bpf-hook: a confined token can't use the profile {name}, which is left out; "
            f"--profile {name} includes it, for a rule with cdi and confined: false",
            file=sys.stderr,
        )
    if options.output == "-":
        print(text, end="")
        return DONE
    step = steps.Step(
        action="write",
        path=Path(options.output, cdi.FILE).absolute(),
        content=text.encode(),
        mode=0o644,
    )
    # Whoever can write to that directory can have hooks run as root.
    problems = steps.untrusted([step])
    if problems:
        raise HookError(USAGE, *problems)
    if step.needed():
        step.execute()
        Output().line(step.describe())
    return DONE


def _shim(options: argparse.Namespace) -> str:
    """The shim beside the hook.  Raises HookError (BAD_STATE) if there is none."""
    from ...shim.preload import library

    return library(hook_options.package(options.hook))


def _asked(options: argparse.Namespace, compiled: Compiled) -> tuple[list[str], list[str], str]:
    """What `_chosen` returns, and the path.  Raises HookError with all that is wrong with both."""
    try:
        where = device("", options.path).path
    except HookError as error:
        try:
            _chosen(options.profile, compiled)
        except HookError as other:
            raise HookError(error.code, *error.problems, *other.problems) from None
        raise
    return *_chosen(options.profile, compiled), where


def _chosen(given: list[str], compiled: Compiled) -> tuple[list[str], list[str]]:
    """The profiles to make devices of, and those that are left out unless they are named.

    Raises HookError.
    """
    if given:
        # A name that can't be a device's is reported as that, even if it is also unknown.
        wrong = [
            Problem(
                f"{quote(name)} can't be a CDI device's name",
                key="--profile",
                item=name,
                hint="it has to end in a letter or a digit",
            )
            for name in dict.fromkeys(given)
            if not cdi.is_name(name)
        ]
        unknown = [
            no_profile("--profile", name, compiled.profiles)
            for name in dict.fromkeys(given)
            if cdi.is_name(name) and name not in compiled.profiles
        ]
        if wrong or unknown:
            raise HookError(USAGE if wrong else UNKNOWN_NAME, *wrong, *unknown)
        return given, []
    # A profile without commands is meant to be combined with others.
    whole = {
        name: masks
        for name, masks in compiled.profiles.items()
        if CMDS.option in masks and cdi.is_name(name)
    }
    beyond = [name for name, masks in whole.items() if beyond_confined(masks, compiled.enums)]
    if len(beyond) == len(whole):
        raise HookError(
            USAGE,
            "the policy has no profile that a confined token can use; give --profile NAME to make "
            "a device of another",
        )
    return [name for name in whole if name not in beyond], beyond


def _list(options: argparse.Namespace) -> int:
    compiled = policy_options.read_policy(options.policy)
    found = [_outcome(one, compiled) for one in _read(options.file)]
    if options.json:
        print_json(found)
        return DONE
    out = Output()
    rows = []
    for one in found:
        granted = one["granted"]
        words = " ".join(f"{option}={text}" for option, text in (granted or {}).items())
        verdict = styled(OK, one["rule"]) if granted else styled(PROBLEM, "refused")
        confined = {True: "yes", False: "no", None: "-"}[one["confined"]]
        rows.append((one["device"], verdict, confined, words or "; ".join(one["problems"])))
    out.table(("DEVICE", "BY", "CONFINED", "GIVES"), rows)
    out.line(
        styled(
            FAINT,
            "this is what root's containers with namespaces of their own get; confined programs "
            "need the guard",
        )
    )
    return DONE


def _outcome(one: cdi.Device, compiled: Compiled) -> dict[str, Any]:
    """What the device `one` would give a container of root's."""
    found: dict[str, Any] = {
        "device": f"{cdi.KIND}={one.name}",
        "path": one.path,
        "rule": None,
        "granted": None,
        "confined": None,
        "problems": [],
    }
    try:
        decision = _decide(one, compiled)
    except HookError as error:
        return {**found, "rule": error.rule, "problems": list(error.sentences)}
    granted = {
        option: show(mask, compiled.enums[option]) for option, mask in decision.grant.masks.items()
    }
    return {
        **found,
        "rule": decision.rule,
        "granted": granted,
        "confined": decision.confined,
    }


def _decide(one: cdi.Device, compiled: Compiled) -> Decision:
    """What the policy decides about the device `one`.  Raises HookError."""
    name = one.profile or ""
    if name not in compiled.profiles:
        raise HookError(UNKNOWN_NAME, no_profile(f"device {one.name}", name, compiled.profiles))
    asked = device(name, one.path, one.shim)
    who = of_description({}, one.engine or compiled.engine, {"cdi": name})
    case = Case(one.name, {}, lambda: compiled)
    decision = case.judge(asked, lambda _: who, guarded=False, empty=True)
    assert decision is not None
    return decision


def _check(options: argparse.Namespace) -> int:
    found = _read(options.file)
    compiled = policy_options.read_policy(options.policy)
    programs = dict.fromkeys(one.program for one in found)
    problems = [problem for name in programs for problem in _program(name)]
    path = Path(options.file).absolute()
    step = steps.Step(action="write", path=path, content=b"", mode=0o644)
    problems += steps.untrusted([step])
    code = USAGE
    for one in found:
        try:
            _decide(one, compiled)
        except HookError as error:
            code = error.code if not problems else code
            problems += [f"{cdi.KIND}={one.name}: {problem}" for problem in error.sentences]
    if options.json:
        names = [f"{cdi.KIND}={one.name}" for one in found]
        print_json({"file": options.file, "devices": names, "problems": problems})
        return code if problems else DONE
    if problems:
        raise HookError(code, *(f"{options.file}: {problem}" for problem in problems))
    count = len(found)
    print(f"{options.file} is in order: {count} device{'' if count == 1 else 's'}")
    return DONE


def _remove(options: argparse.Namespace) -> int:
    program = hook_options.hook(options.hook)["path"]
    problems = layout.kept(program)
    if problems:
        raise HookError(USAGE, *problems)
    for path in layout.devices(program):
        step = steps.Step(action="remove", path=path, content=b"", mode=0)
        step.execute()
        Output().line(step.describe())
    return DONE


def _program(name: str) -> list[str]:
    """What is wrong with the program `name` that the devices run."""
    try:
        status = Path(name).stat()
    except OSError as error:
        return [f"the hook {name}: {error.strerror}; oci-bpf-hook install puts it in place"]
    if not status.st_mode & stat.S_IXUSR:
        return [f"the hook {name} isn't executable"]
    if status.st_uid != 0 or status.st_mode & 0o022:
        return [f"the hook {name} runs as root, and others than root can change it"]
    return []


def _read(path: str) -> tuple[cdi.Device, ...]:
    """The devices of the file `path`.  Raises HookError with everything that is wrong with it."""
    import jsonschema

    from ...resources import schema

    try:
        data = load_json(request.read(path), unique=True)
    except ValueError as error:
        raise HookError(BAD_STATE, f"{path}: this isn't JSON: {error}") from None
    errors = jsonschema.Draft202012Validator(schema("cdi")).iter_errors(data)
    problems = [
        f"{path}: {'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message[:200]}"
        for error in sorted(errors, key=lambda error: list(map(str, error.absolute_path)))
    ]
    if problems:
        raise HookError(BAD_STATE, *problems)
    assert isinstance(data, dict)  # The schema says so.
    return cdi.devices(data)


COMMANDS = (
    Command(
        name="generate",
        help="make a CDI device from each profile, or from those that --profile names",
        arguments=(
            argument(
                *("--profile",),
                action="append",
                default=[],
                metavar="NAME",
                help="a profile of the policy; may be repeated (default: every profile that a "
                "confined token can use)",
            ),
            argument(
                *("--output",),
                default=cdi.DIRECTORY,
                metavar="DIR",
                help=f"where to write {cdi.FILE}; - means standard output (default: "
                f"{cdi.DIRECTORY})",
            ),
            argument(
                *("--path",),
                default=PATH,
                metavar="DIR",
                help=f"where the bpffs is mounted in the container (default: {PATH})",
            ),
            argument(
                *("--shim",),
                action="store_true",
                help="preload the shim, which makes tokens for programs that make none themselves",
            ),
            hook_options.ARGUMENT,
            _ENGINE,
            _POLICY,
        ),
        run=_generate,
    ),
    Command(
        name="list",
        help="show what each device grants, and which rule decides it",
        arguments=(_FILE, _POLICY, JSON),
        run=_list,
    ),
    Command(
        name="check",
        help="find what is wrong with a CDI file that generate wrote, its hook and its directory",
        arguments=(_FILE, _POLICY, JSON),
        run=_check,
    ),
    Command(
        name="remove",
        help="remove the devices before the hook is removed; if another CDI file uses the hook, "
        "name that file and remove nothing",
        arguments=(hook_options.ARGUMENT,),
        run=_remove,
    ),
)

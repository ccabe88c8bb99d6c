"""`oci-bpf-hook policy` checks and shows the policy, and tries a request against it."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ...bpf.names import CMDS, KINDS
from ...bpf.type_facts import REACHES_BEYOND
from ...delegation.lint import lint
from ...delegation.masks import show
from ...errors import DONE, USAGE, HookError
from ...kernel import enums as kernel
from ...kernel import releases
from ...paths import POLICY
from ...pipeline.case import Case
from ...policy.store import cache
from ...policy.subjects import of_description
from ...resources import BUILTIN_POLICY
from ..options import kernel as kernel_options
from ..options import policy as policy_options
from ..options import request
from ..options.output import JSON, print_json
from ..options.table import Command, argument

ABOUT = """
Checks a policy file, shows the policy that is in force, and says what a policy would decide about a
request. oci-bpf-hook-policy(5) describes the file.
"""


def _check(options: argparse.Namespace) -> int:
    from ...policy.store.file import load

    if os.path.abspath(options.file) == POLICY:
        _trusted()
    loaded = load(request.read(options.file), options.file)
    enums = kernel.enums(KINDS)
    # A profile without commands is meant to be combined with others.
    doubtful = [
        (f"profile {name}", found)
        for name, masks in loaded.header["profiles"].items()
        if CMDS.option in masks
        for found in lint(masks, enums, confined=True)
    ]
    # An unconfined rule has a warning of its own about what it reaches.
    doubtful += [
        (f"rule {rule['name']}", found)
        for rule in loaded.listed
        for found in lint(rule["masks"], enums, confined=rule["confined"])
        if rule["confined"] or found.code != REACHES_BEYOND
    ]
    unconfined = [rule["name"] for rule in loaded.rules if not rule["confined"]]
    if options.json:
        findings: list[dict[str, Any]] = [
            {"about": what, "line": None, "column": None, "code": found.code, "text": str(found)}
            for what, found in doubtful
        ]
        findings += [
            {**dict.fromkeys(("about", "code")), "line": one.line, "column": one.column}
            | {"text": one.text}
            for one in loaded.warnings
        ]
        names = [rule["name"] for rule in loaded.rules]
        print_json(
            {
                "file": options.file,
                "rules": names,
                "unconfined": unconfined,
                "findings": findings,
            }
        )
        return DONE
    for what, found in doubtful:
        print(f"{options.file}: {what}: {found.code}: {found}")
    for one in loaded.warnings:
        print(f"{options.file}:{one.line}:{one.column}: warning: {one.text}")
    count = len(loaded.rules)
    trusting = f", of which {len(unconfined)} unconfined" if unconfined else ""
    print(f"{options.file} is in order: {count} rule{'' if count == 1 else 's'}{trusting}")
    return DONE


def _trusted() -> None:
    """Raise HookError unless the policy file exists and the hook would trust its owner and mode."""
    fd = cache.open_source(POLICY)
    if fd < 0:
        built_in = "the built-in policy holds; oci-bpf-hook policy show prints it"
        raise HookError(USAGE, f"{POLICY} doesn't exist, and so {built_in}")
    os.close(fd)


def _show(options: argparse.Namespace) -> int:
    # A file that exists but can't be trusted isn't in force, and is an error here too.
    cache.in_force()
    etc = Path(POLICY)
    source = etc if etc.exists() else BUILTIN_POLICY
    text = source.read_text(encoding="utf-8")
    if options.json:
        from yaml import safe_load

        print_json({"file": str(etc) if source is etc else None, "policy": safe_load(text)})
        return DONE
    origin = str(etc) if source is etc else f"built in; {etc} doesn't exist"
    print(f"# {origin}")
    print(text, end="")
    return DONE


def _test(options: argparse.Namespace) -> int:
    annotations = request.annotations(options)
    attributes = policy_options.attributes(options)
    name = attributes.get("container")
    compiled = policy_options.read_policy(options.policy)

    case = Case("", annotations, lambda: compiled)
    name = name if isinstance(name, str) else None
    asked = request.request(annotations, name, judge=case.resolve)
    subject = of_description(annotations, options.engine or compiled.engine, attributes)
    answer: dict[str, Any] = {"rule": None, "granted": None, "confined": None, "problems": []}
    code = DONE
    try:
        decision = case.judge(asked, lambda _: subject, guarded=False, empty=True)
        assert decision is not None
        answer["rule"] = decision.rule
        answer["granted"] = {
            option: show(mask, compiled.enums[option])
            for option, mask in decision.grant.masks.items()
        }
        answer["confined"] = decision.confined
        answer["trimmed"] = list(decision.trimmed)
        running = releases.running()
        if not running.tokens:
            raise kernel_options.cannot(running)
    except HookError as error:
        # With an unknown name the request means nothing, so no rule can decide about it.
        if case.wanted is None:
            raise
        code = error.code
        answer["rule"] = error.rule or answer["rule"]
        answer["granted"], answer["problems"] = None, list(error.sentences)
    answer["dropped"] = list(case.dropped)
    answer["attributes"] = policy_options.shown(subject)
    print(json.dumps(answer, indent=2) if options.json else _text(answer))
    return code


def _text(answer: dict[str, Any]) -> str:
    lines = [f"rule: {answer['rule'] or 'none'}"]
    if answer["granted"] is not None:
        lines += [f"granted: {option}={text}" for option, text in answer["granted"].items()]
        lines.append("confined" if answer["confined"] else "unconfined: trusted with the kernel")
        lines += [f"trimmed: {item}" for item in answer["trimmed"]]
    lines += [f"refused: {problem}" for problem in answer["problems"]]
    lines += [f"dropped: {item}" for item in answer["dropped"]]
    for key, one in answer["attributes"].items():
        if one["value"] is not None:
            lines.append(f"{key}: {one['value']} (set by the {one['set_by']})")
    return "\n".join(lines)


COMMANDS = (
    Command(
        name="check",
        help="find what is wrong or doubtful in a policy file",
        arguments=(
            argument(
                *("file",),
                nargs="?",
                default=POLICY,
                metavar="FILE",
                help=f"the file (default: {POLICY})",
            ),
            JSON,
        ),
        run=_check,
    ),
    Command(
        name="show",
        help="print the policy in force, and say where it comes from",
        arguments=(JSON,),
        run=_show,
    ),
    Command(
        name="test",
        help="say which rule decides a request, and what it grants",
        arguments=(
            *request.ARGUMENTS,
            *policy_options.ARGUMENTS,
            JSON,
        ),
        run=_test,
    ),
)

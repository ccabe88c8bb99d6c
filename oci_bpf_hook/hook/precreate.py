"""The hook at podman's stage precreate: gives a container what it needs to use its token.

podman passes the configuration that the runtime is about to get, and takes back what this prints.
If a container asks and the policy grants it something, precreate adds CAP_BPF and the other
capabilities that its types need, a filter that lets bpf(2) through, libbpf's variable, and the shim
if that is asked for.
Everything else in the configuration stays as it was written.

Nothing is delegated here.  The hook does that at createRuntime, when it looks at the container
itself and not at its configuration; if the container isn't what the configuration says, it doesn't
start.  So nothing is added to a configuration that doesn't run that hook, such as one that podman
makes while the hook is being uninstalled.
"""

import posix

from ..delegation.annotations import asked, parse
from ..errors import BAD_STATE, BUG, DONE, USAGE, HookError, bug, quote
from ..oci.state import CONFIG_MAX, annotations_of
from ..text.strict_json import load_json, scanner
from .process import caller, options_of, read_in_time, report, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..bpf.names import Enum
    from ..delegation.annotations import Request
    from ..pipeline.case import Case
    from ..policy.compiled import Compiled
    from ..policy.subject import Subject

_WHAT = "configuration"
# A hook with one of these arguments doesn't delegate what annotations ask for: a CDI device's hook
# reads no annotations, and precreate delegates nothing.
_NOT_OURS = frozenset(("--profile", "precreate"))
_STAGES = ("prestart", "createRuntime", "createContainer")
# Where the launcher is, relative to the package's directory: once installed, and in a checkout.
_LAUNCHERS = ("../oci-bpf-hook", "../hooks.d/oci-bpf-hook")


def main(arguments: "Sequence[str]") -> int:
    """Run precreate with the command line's `arguments`; returns one of errors.EXITS.

    The steps have the numbers of `hook.main`, and end with the grant.
    """
    identity = "?"
    try:
        settle()
        # 1. state: here it is the configuration
        text = read_in_time(_WHAT, CONFIG_MAX)
        config = _decoded(text, unique=False)
        # 2. annotations
        if asked(annotations_of(config, _WHAT)):
            from ..container.proposed import identity as identify

            # JSON readers disagree about an object that has a key twice.
            config = _decoded(text, unique=True)
            try:
                identity = identify(config)
                text = _changed(text, config, _options(arguments), identity)
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                why = quote(repr(error))
                raise HookError(
                    BAD_STATE, f"the {_WHAT} on stdin isn't what podman makes: {why}"
                ) from None
        _hand_back(text)
        return DONE
    except HookError as error:
        return report(identity, error.code, str(error))
    except Exception as error:  # noqa: BLE001  Only here: a bug must not put a traceback into a log.
        return report(identity, BUG, bug(error))


def _decoded(text: bytes, *, unique: bool) -> "dict[str, Any]":
    try:
        config = load_json(text, unique=unique)
    except ValueError as error:
        raise HookError(BAD_STATE, f"the {_WHAT} on stdin isn't JSON: {error}") from None
    annotations_of(config, _WHAT)
    assert isinstance(config, dict)  # annotations_of has checked that.
    return config


def _options(arguments: "Sequence[str]") -> dict[str, str]:
    options = options_of(arguments)
    if "profile" in options:
        raise HookError(
            USAGE, "precreate takes no --profile: a CDI device adds what it needs itself"
        )
    return options


def _changed(
    text: bytes, config: "dict[str, Any]", options: "Mapping[str, str]", identity: str
) -> bytes:
    """The configuration `text` of the container `identity`, with what the container needs."""
    from ..container.namespaces import is_initial
    from ..container.proposed import name
    from ..syslog import INFO, log

    if not _is_hooked(config.get("hooks") or {}):
        log(
            INFO,
            f"{quote(identity)[1:-1]}: precreate adds nothing, because the hook that delegates "
            "isn't run for this container: no directory of hooks_dir has the oci-bpf-hook.json "
            "of this installation",
        )
        return text
    # 3. request
    given, names = (_given, _named) if is_initial() else (_asked, _asked)
    try:
        request = parse(config["annotations"], lambda: name(config))
    except HookError as error:
        from ..delegation.problems import joined

        raise joined(error, lambda rest: names(rest, config, options, identity)) from None
    if request is None:
        return text
    masks, enums = given(request, config, options, identity)
    if not masks:
        return text
    from ..bpf.capabilities import capabilities
    from ..oci.additions import Additions
    from ..text.splice import spliced
    from ..text.strict_json import json_value

    added = Additions(config)
    added.capabilities(capabilities(masks, enums))
    added.bpf()
    added.token_path(request.path)
    if request.shim:
        from ..paths import PACKAGE
        from ..shim.preload import of_config

        added.shim(of_config(config, str(config["root"]["path"]), PACKAGE))
    return spliced(text.decode(), config, scanner(), json_value).encode()


def _is_hooked(hooks: "Mapping[str, Any]") -> bool:
    """Whether the hook that decides and delegates will be run."""
    from ..paths import PACKAGE

    launchers = [_status(f"{PACKAGE}/{path}") for path in _LAUNCHERS]
    for stage in _STAGES:
        for hook in hooks.get(stage) or []:
            ours = _status(hook["path"])
            if ours and ours in launchers and _NOT_OURS.isdisjoint(hook.get("args") or []):
                return True
    return False


def _status(path: str) -> tuple[int, int] | None:
    try:
        status = posix.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _named(
    request: "Request",
    config: "dict[str, Any]",
    options: "Mapping[str, str]",
    identity: str,
) -> None:
    """Check that this kernel and the policy know the names.  Raises HookError if they don't."""
    _case(config, options, identity).resolve(request)


def _case(config: "dict[str, Any]", options: "Mapping[str, str]", identity: str) -> "Case":
    from ..container.proposed import name
    from ..pipeline.case import Case
    from ..policy.store.cache import in_force

    return Case(
        identity,
        config["annotations"],
        lambda: in_force(header=options.get("header")),
        engine=options.get("engine"),
        find_name=lambda: name(config),
    )


def _given(
    request: "Request",
    config: "dict[str, Any]",
    options: "Mapping[str, str]",
    identity: str,
) -> "tuple[dict[str, int], Mapping[str, Enum]]":
    """The masks that the policy grants, and the kernel's names; a refusal is recorded."""
    from ..container.proposed import Proposed
    from ..policy.subject import of_container

    case = _case(config, options, identity)
    try:
        try:
            annotations = _by_user(request, config, identity)
        except HookError:
            # 4. policy
            if not case.policy().image_annotations:
                raise
            # The hook may grant what the image asks for, but an image's word adds nothing here: the
            # user who runs it adds the capabilities and the rest.
            return {}, {}
        with Proposed(config) as container:

            def subject(policy: "Compiled") -> "Subject":
                return of_container(
                    annotations,
                    container,
                    "",
                    engine=case.engine(),
                    uses=policy.uses,
                    caller=caller(),
                    find_name=case.name,
                )

            # 5. masks, 6. subject, 7. grant
            decision = case.judge(request, subject)
    except HookError as error:
        from ..pipeline.outcomes import refused

        refused(case, error)
        raise
    return decision.grant.masks if decision else {}, case.enums()


def _by_user(
    request: "Request", config: "dict[str, Any]", identity: str, *, rootless: bool = False
) -> "Mapping[str, str]":
    """The annotations that aren't the image's.

    Raises HookError (REFUSED) if the image's annotations make a difference to the `request`.
    """
    from ..container.images import asked_by_user, copies
    from ..container.proposed import name

    annotations: Mapping[str, str] = config["annotations"]
    if not copies(config.get("ociVersion")):
        return annotations
    place = str(config["root"]["path"])
    return asked_by_user(
        request, annotations, identity, place, lambda: name(config), rootless=rootless
    )


def _asked(
    request: "Request",
    config: "dict[str, Any]",
    options: "Mapping[str, str]",
    identity: str,
) -> "tuple[dict[str, int], Mapping[str, Enum]]":
    """The masks that the broker would grant, and the kernel's names, for a rootless engine.

    The broker decides, because a user may not read the policy.  The container may have a user
    namespace of its own or share podman's.  Both belong to the user, so that capabilities in them
    give nothing that the user doesn't have.
    """
    from ..bpf.names import KINDS
    from ..broker.client import decision
    from ..broker.wire import make_ask
    from ..container.proposed import name
    from ..kernel.enums import enums
    from ..policy.subjects import claims

    # 6. subject: only what the broker can't see itself
    annotations = _by_user(request, config, identity, rootless=True)
    found = claims(annotations, lambda: name(config))
    granted = decision(make_ask(request, identity, found))
    return granted.masks, enums(KINDS, header=options.get("header"))


def _hand_back(text: bytes) -> None:
    view = memoryview(text)
    try:
        while view:
            view = view[posix.write(1, view) :]
    except OSError as error:
        raise HookError(BAD_STATE, f"the {_WHAT} can't be handed back: {error.strerror}") from None

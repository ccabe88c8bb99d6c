"""The hook: the OCI state on standard input, a delegated bpffs in the container.

An engine runs this in front of every start of a container that asks, so a container
that doesn't ask costs next to nothing, and what a request needs is imported when one
is there.  Only `main` turns an error into a line and an exit code.
"""

from ..delegation.annotations import asked
from ..errors import BAD_STATE, BUG, DONE, UNKNOWN_NAME, HookError, bug
from ..oci.state import STATE_MAX, annotations_of
from ..text.strict_json import load_json
from .process import options_of, read_in_time, report, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..audit.case import Case
    from ..oci.state import State
    from ..policy.compiled import Compiled
    from ..policy.subject import Subject


def main(arguments: "Sequence[str]") -> int:
    """Run the hook with its command line's `arguments`; its exit code, one of errors.EXITS.

    The steps, which have the same numbers wherever they are taken:

    1. state: what the runtime tells of the container, on standard input.
    2. annotations: a container with none of ours is let through.
    3. request: what the annotations, or a CDI device, ask for.
    4. policy: the administrator's, compiled for this kernel.
    5. masks: the bits that the request's names mean here.
    6. subject: who asks, as far as the policy's rules look.
    7. grant: what the first rule that matches gives of it, and the guard for that.
    8. halves: the container's opens a bpffs, the host's sets the masks and creates it.
    9. read-back: what the kernel shows of the mount is the grant, and nothing else.
    10. record: the grant is in the audit trail before the mount is the container's to keep.

    Whoever may not delegate, beside a rootless engine or in the container already, has the broker
    take the steps from 4 on (`asking`, `session`).
    """
    if arguments and arguments[0] == "precreate":
        from .precreate import main as precreate

        return precreate(arguments[1:])
    identity = "?"
    try:
        cwd = settle()
        # 1. state
        decoded = _decoded(read_in_time("state", STATE_MAX))
        # 2. annotations
        if not asked(annotations_of(decoded)) and "--profile" not in arguments:
            return DONE
        identity = decoded.get("id", "?") if isinstance(decoded, dict) else "?"
        _for_state(decoded, options_of(arguments), cwd)
        return DONE
    except HookError as error:
        return report(identity, error.code, str(error))
    except Exception as error:  # noqa: BLE001  The one place: a bug is no traceback in a log.
        return report(identity, BUG, bug(error))


def _decoded(text: bytes) -> object:
    try:
        return load_json(text)
    except ValueError as error:
        raise HookError(BAD_STATE, f"the state on stdin is no JSON: {error}") from None


def _for_state(decoded: object, options: "Mapping[str, str]", cwd: str) -> None:
    """Do what the `decoded` state asks for, or raise HookError with nothing done.

    Who may delegate does so, and otherwise the broker is asked.  Either is recorded by whoever
    decides, once there is a request.
    """
    from ..container.namespaces import is_initial
    from ..oci.state import check

    state = check(decoded)
    if not is_initial():
        from .asking import ask

        ask(state, options, cwd)
        return
    from ..loader import GRANT, ahead

    ahead(GRANT)
    from ..audit.case import Case
    from ..policy.store.cache import in_force
    from .process import podmans_name

    case = Case(
        state.id,
        {} if "profile" in options else state.annotations,
        lambda: in_force(header=options.get("header")),
        engine=options.get("engine"),
        find_name=lambda: podmans_name(state),
    )
    try:
        _delegate(state, options, case)
    except HookError as error:
        case.refused(error)
        raise


def _delegate(state: "State", options: "Mapping[str, str]", case: "Case") -> None:
    """Steps 3 to 10.  Raises HookError, with nothing done."""
    from ..container.namespaces import Container
    from ..oci.state import find_rootfs, visible
    from ..policy.subject import of_container
    from .process import by_user, caller, request_of

    # 3. request
    request = case.request(lambda: request_of(state, options, case.name))
    if request is None:
        return
    with Container(state.pid) as container:
        rootfs = find_rootfs(state)
        visible(request.path, rootfs.masked, rootfs.remounted)
        # 4. policy
        policy = case.policy()
        device = options.get("profile")
        annotations: Mapping[str, str] = state.annotations
        if device is None and not policy.image_annotations:
            annotations = by_user(state, request, rootfs, case.engine(), case.name)
        elif device is not None and device not in policy.profiles:
            from ..delegation.suggestions import no_profile

            raise HookError(UNKNOWN_NAME, no_profile("the CDI device", device, policy.profiles))

        def subject(policy: "Compiled") -> "Subject":
            return of_container(
                annotations,
                container,
                rootfs.path,
                engine=case.engine(),
                uses=policy.uses,
                caller=caller(),
                device=device,
                find_name=case.name,
            )

        # 5. masks, 6. subject, 7. grant
        if case.judge(request, subject) is not None:
            # 8. halves, 9. read-back, 10. record
            case.give(container, rootfs.path, alone=device is not None)

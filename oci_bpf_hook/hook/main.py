"""The hook: reads the OCI state on standard input, and mounts a delegated bpffs in the container.

The engine waits for the hook before a container starts, so the hook has to be fast, above all for a
container that asks for nothing.  What a request needs is imported only once there is a request.
Only `main` turns an error into a line and an exit code.
"""

from ..delegation.annotations import asked
from ..errors import BAD_STATE, BUG, DONE, UNKNOWN_NAME, HookError, bug
from ..oci.state import STATE_MAX, annotations_of
from ..text.strict_json import load_json
from .process import options_of, read_in_time, report, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..oci.state import State
    from ..pipeline.case import Case
    from ..policy.compiled import Compiled
    from ..policy.subject import Subject


def main(arguments: "Sequence[str]") -> int:
    """Run the hook with its command line's `arguments`; returns one of errors.EXITS.

    These are the steps, which have the same numbers in all modules that take them:

    1. state: the runtime describes the container on standard input.
    2. annotations: a container without any that begin with io.bpffs. starts as it is.
    3. request: the annotations, or a CDI device, say what the container asks for.
    4. policy: the administrator's policy is loaded, compiled for this kernel.
    5. masks: the names in the request become the bits that they mean on this kernel.
    6. subject: who asks is found out, as far as the policy's rules are about that.
    7. grant: the first rule that matches decides, and a confined grant gets the guard.
    8. halves: the container half opens a bpffs, and the host half sets the masks and creates it.
    9. read-back: what the kernel shows for the mount has to be the grant, and nothing more.
    10. record: the audit trail has the grant before the container may keep the mount.

    A hook that may not delegate, because it runs for a rootless engine or is already in the
    container, asks the broker, which decides and is the host half (`asking`, `broker.worker`).
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
    except Exception as error:  # noqa: BLE001  Only here: a bug must not put a traceback into a log.
        return report(identity, BUG, bug(error))


def _decoded(text: bytes) -> object:
    try:
        return load_json(text)
    except ValueError as error:
        raise HookError(BAD_STATE, f"the state on stdin isn't JSON: {error}") from None


def _for_state(decoded: object, options: "Mapping[str, str]", cwd: str) -> None:
    """Do what the `decoded` state asks for, or raise HookError with nothing done.

    A process that may not delegate asks the broker.  Whoever decides also records the decision.
    """
    from ..loader import GRANT, REQUEST, ahead

    ahead(REQUEST)
    from ..container.namespaces import is_initial
    from ..oci.state import check

    state = check(decoded)
    if not is_initial():
        from .asking import ask

        ask(state, options, cwd)
        return
    ahead(GRANT)
    from ..pipeline.case import Case
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
        from ..pipeline.outcomes import refused

        refused(case, error)
        raise


def _delegate(state: "State", options: "Mapping[str, str]", case: "Case") -> None:
    """Take steps 3 to 10.  Raises HookError, with nothing done."""
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
        if request.shim:
            from ..shim.preload import check, unchangeable

            unchangeable(container)
            check(rootfs)
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

"""Asks the broker to delegate, for a hook that can't do it itself.

That is a hook that a rootless engine runs, or one that already is in the container.  No other hook
imports this module.
"""

from ..errors import HookError
from .process import by_user, podmans_name, request_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..delegation.annotations import Request
    from ..oci.state import State


def ask(state: "State", options: "Mapping[str, str]", cwd: str) -> None:
    """Have the broker delegate what the container of `state` asks for.  Raises HookError.

    `cwd` is the directory in which the runtime has started the hook.
    """
    # 3. request
    try:
        request = request_of(state, options, lambda: podmans_name(state))
    except HookError as error:
        from ..delegation.problems import joined

        # Only the broker knows the policy's profiles, so it checks the names in the correct part.
        raise joined(error, lambda rest: _send(rest, state, options, cwd, only_ask=True)) from None
    if request is not None:
        _send(request, state, options, cwd, only_ask=False)


def _send(
    request: "Request", state: "State", options: "Mapping[str, str]", cwd: str, *, only_ask: bool
) -> None:
    """Have the broker delegate what is asked for, or with `only_ask` only decide about it."""
    from ..bpf.names import KINDS
    from ..broker.client import grant
    from ..broker.wire import make_ask
    from ..container.namespaces import Container
    from ..kernel.enums import enums
    from ..oci.state import find_rootfs, visible
    from ..policy.subjects import claims

    with Container(state.pid) as container:
        rootfs = find_rootfs(state, cwd=cwd)
        visible(request.path, rootfs.masked, rootfs.remounted)
        if request.shim:
            from ..shim.preload import check

            check(rootfs)

        def name() -> str | None:
            return podmans_name(state)

        annotations = by_user(state, request, rootfs, options.get("engine"), name, rootless=True)
        names = enums(KINDS, header=options.get("header"))
        # 6. subject: only what the broker can't see itself
        asked = make_ask(request, state.id, claims(annotations, name))
        # 8. halves: the container's is ours, the host's is the broker; and 9. read-back
        grant(request, asked, container, rootfs.path, names, only_ask=only_ask)

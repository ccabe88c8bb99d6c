"""The hook where it can't delegate: in the container already, or beside a rootless engine.

It has the broker do it, and imports this only then.
"""

from ..errors import HookError
from .process import by_user, podmans_name, request_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..delegation.annotations import Request
    from ..oci.state import State


def ask(state: "State", options: "Mapping[str, str]", cwd: str) -> None:
    """Have the broker delegate what the container of `state` asks for.  Raises HookError."""
    # 3. request
    try:
        request = request_of(state, options, lambda: podmans_name(state))
    except HookError as error:
        from ..delegation.problems import joined

        # Which names there are, the policy's profiles among them, is the broker's to say.
        raise joined(error, lambda rest: _send(rest, state, options, cwd, only_ask=True)) from None
    if request is not None:
        _send(request, state, options, cwd, only_ask=False)


def _send(
    request: "Request", state: "State", options: "Mapping[str, str]", cwd: str, *, only_ask: bool
) -> None:
    """Have the broker delegate what is asked for, or with `only_ask` say what it thinks of it."""
    from ..bpf.names import KINDS
    from ..broker.client import grant
    from ..broker.wire import make_ask
    from ..container.namespaces import Container
    from ..kernel.enums import enums
    from ..oci.state import find_rootfs, visible
    from ..policy.subject import claims

    with Container(state.pid) as container:
        rootfs = find_rootfs(state, cwd=cwd)
        visible(request.path, rootfs.masked, rootfs.remounted)

        def name() -> str | None:
            return podmans_name(state)

        annotations = by_user(state, request, rootfs, options.get("engine"), name, rootless=True)
        names = enums(KINDS, header=options.get("header"))
        # 6. subject: what of it the broker doesn't see for itself.
        asked = make_ask(request, state.id, claims(annotations, name))
        # 8. halves, the other of which is the broker's, and 9. read-back
        grant(request, asked, container, rootfs.path, names, only_ask=only_ask)

"""NRI's calls and messages, as far as the plugin needs them, with the numbers of their fields.

There are two dialects.  Up to NRI 0.11 most events of a container are a call of StateChange, which
says which event it is, and only a few have a call of their own; since NRI 0.12 each has one (NRI:
pkg/api/api.proto).
"""

from ...delegation.annotations import PREFIX, asked
from ...values import Value
from . import ttrpc
from .protobuf import MalformedError, Message, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE = "nri.pkg.api.v1alpha1.Runtime"
# The NRI whose messages these are.
VERSION = "v0.12.0"

CONFIGURE = "Configure"
SYNCHRONIZE = "Synchronize"
SHUTDOWN = "Shutdown"
CREATE = "CreateContainer"
START = "StartContainer"
STOP = "StopContainer"
REMOVE = "RemoveContainer"
STATE_CHANGE = "StateChange"
# The events that we subscribe to, by their numbers in a StateChange.
_EVENTS = {4: CREATE, 6: START, 10: STOP, 11: REMOVE}
# An engine doesn't configure a plugin that subscribes to an event that it doesn't know; all
# releases know these.
SUBSCRIBED = sum(1 << number - 1 for number in _EVENTS)

# The states of a container, of which 0 is unknown and 1 is created.
_NOT_STARTED = (0, 1)
_PREFIX = PREFIX.encode()


class Configuration(Value):
    """What the engine says of itself: `runtime` is its name, and `timeout` is in seconds.

    The `timeout` is for the answer to a request; it is 0 if the engine doesn't tell it.
    """

    __slots__ = ("runtime", "timeout", "version")
    runtime: str
    version: str
    timeout: float


class Mount(Value):
    """A mount that the container is going to have."""

    __slots__ = ("destination", "kind", "options", "source")
    destination: str
    kind: str
    source: str
    options: tuple[str, ...]


class Creation(Value):
    """A container that is to be created, and its pod, in the engine's own words.

    The `annotations` are the pod's, which its author writes, and `engine_annotations` are the
    container's, of which the engine sets some.  `namespaces` are the paths of the container's
    namespaces by their types; a path is "" if the namespace is still to be made.
    """

    __slots__ = (
        *("annotations", "engine_annotations", "environment", "id", "image", "mounts", "name"),
        *("namespace", "namespaces", "pod", "runtime_handler"),
    )
    id: str
    name: str
    pod: str
    namespace: str
    runtime_handler: str
    image: str
    annotations: dict[str, str]
    engine_annotations: dict[str, str]
    environment: tuple[str, ...]
    mounts: tuple[Mount, ...]
    namespaces: dict[str, str]


def asks(payload: bytes) -> bool:
    """Whether the pod of the container that is to be created has annotations of ours.

    Without the prefix in the request no key begins with it, so mostly nothing is decoded.
    """
    if _PREFIX not in payload:
        return False
    # An image's label may have it too, and is of no account.
    return asked(Message(payload).message(1).pairs(6))


def read_configure(payload: bytes) -> Configuration:
    """What the engine says of itself.  Raises MalformedError, as all that reads here does."""
    message = Message(payload)
    return Configuration(
        runtime=message.text(2), version=message.text(3), timeout=message.number(5) / 1000
    )


def read_synchronize(payload: bytes) -> tuple[list[bytes], bool]:
    """The containers that there are, for `unstarted`, and whether another call has more."""
    message = Message(payload)
    return message.datas(2), bool(message.number(3))


def unstarted(containers: "Iterable[bytes]", identities: "Iterable[str]") -> set[str]:
    """Those of the `identities` whose containers are among `containers`, and not started yet.

    Only containers that may be one of these are decoded; one that can't be is passed over.
    """
    wanted = {one.encode("utf-8", "surrogateescape"): one for one in identities}
    found = set()
    for data in containers:
        if any(one in data for one in wanted):
            try:
                container = Message(data)
                if container.number(4) in _NOT_STARTED:
                    found.add(container.text(1))
            except MalformedError:
                continue
    return found.intersection(wanted.values())


def read_id(payload: bytes) -> str:
    """The id of the container that is to be created."""
    return Message(payload).message(2).text(1)


def read_create(payload: bytes) -> Creation:
    """The container that is to be created."""
    request = Message(payload)
    return _creation(request.message(1), request.message(2))


def read_started(method: str, payload: bytes) -> Creation | None:
    """The container that is to be started, by a call of `method`; None if its pod doesn't ask."""
    if _PREFIX not in payload:
        return None
    message = Message(payload)
    at = _pod_at(method)
    pod = message.message(at)
    return _creation(pod, message.message(at + 1)) if asked(pod.pairs(6)) else None


def _creation(pod: Message, container: Message) -> Creation:
    listed = container.message(11).messages(1)
    return Creation(
        id=container.text(1),
        name=container.text(3),
        pod=pod.text(2),
        namespace=pod.text(4),
        runtime_handler=pod.text(7),
        image=container.message(22).text(1),
        annotations=pod.pairs(6),
        engine_annotations=container.pairs(6),
        environment=container.texts(8),
        mounts=tuple(map(_mount, container.messages(9))),
        namespaces={one.text(1): one.text(2) for one in listed},
    )


def _mount(message: Message) -> Mount:
    return Mount(
        destination=message.text(1),
        kind=message.text(2),
        source=message.text(3),
        options=message.texts(4),
    )


def concerns(method: str, payload: bytes, identities: "Iterable[str]") -> bool:
    """Whether a call of `method` may be about one of the `identities`, or about a pod that asks.

    The container isn't decoded for that, so that events of all others cost little, however long
    their pods' authors make them.
    """
    if any(one.encode("utf-8", "surrogateescape") in payload for one in identities):
        return True
    return _PREFIX in payload and asked(Message(payload).message(_pod_at(method)).pairs(6))


def _pod_at(method: str) -> int:
    """The field of the pod in a call about an event; the container's is the next one."""
    return 2 if method == STATE_CHANGE else 1


def read_event(method: str, payload: bytes) -> tuple[str, str]:
    """The event of a call of `method`, in either dialect, and the id of its container."""
    message = Message(payload)
    if method != STATE_CHANGE:
        return method, message.message(2).text(1)
    return _EVENTS.get(message.number(1), ""), message.message(3).text(1)


def register(call: int, name: str, index: str) -> bytes:
    """Our own call: it names the plugin, and says with `index` whose turn it has among others."""
    payload = encode({1: name, 2: index, 3: VERSION})
    return ttrpc.request(call, RUNTIME_SERVICE, "RegisterPlugin", payload)


def configured() -> bytes:
    """The answer to Configure: the events that we want to hear of."""
    return encode({2: SUBSCRIBED})


def synchronized(*, more: bool) -> bytes:
    """The answer to Synchronize, which repeats whether `more` follows."""
    return encode({2: int(more)})


def adjusted(mount: Mount, environment: "Mapping[str, str]") -> bytes:
    """The answer to CreateContainer that adds a `mount`, and variables to the environment."""
    added = encode({1: mount.destination, 2: mount.kind, 3: mount.source, 4: list(mount.options)})
    variables = [encode({1: name, 2: value}) for name, value in environment.items()]
    return encode({1: encode({3: [added], 4: variables})})

"""CRI, as the kubelet speaks it to containerd: so few messages that they are made by hand.

Numbers are the fields' of Kubernetes' runtime.v1, api.proto.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

Value: TypeAlias = "int | str | Mapping[int, Value] | Sequence[Value]"

# Debian 13's; where this is type-checked there needn't be one.
grpc: Any = import_module("grpc")
LOGS = "/tmp/pods"
# ContainerState.
EXITED = 2
_SECONDS = 60


def encode(fields: Mapping[int, Value]) -> bytes:
    """A message with these `fields`; a sequence is a repeated field."""
    return b"".join(_field(number, value) for number, value in fields.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, str):
        return _bytes(number, value.encode())
    if isinstance(value, Mapping):
        return _bytes(number, encode(value))
    return b"".join(_field(number, one) for one in value)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    return bytes([value & 127 | 128]) + _varint(value >> 7)


def decode(data: bytes) -> dict[int, Any]:
    """The last value of each field of a message: a number, or bytes."""
    found: dict[int, Any] = {}
    stream = iter(data)
    for key in stream:
        number = _read(key, stream)
        value = _read(next(stream), stream)
        if number & 7:
            found[number >> 3] = bytes(next(stream) for _ in range(value))
        else:
            found[number >> 3] = value
    return found


def _read(first: int, stream: Iterator[int]) -> int:
    value, shift = first & 127, 7
    while first & 128:
        first = next(stream)
        value |= (first & 127) << shift
        shift += 7
    return value


class Runtime:
    """containerd, by its socket."""

    def __init__(self, socket: str, handler: str = "bpf") -> None:
        self._attempts = 0
        self._handler = handler
        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method: str, request: Mapping[int, Value]) -> dict[int, Any]:
        """Call a method of the RuntimeService."""
        call = self._channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        return decode(call(encode(request), timeout=_SECONDS, wait_for_ready=True))

    def run(
        self, pod: str, annotations: Mapping[str, str], script: str, *devices: str
    ) -> tuple[bool, str]:
        """Whether the container `probe` of a pod in `monitoring` has started; what it printed.

        Of one that hasn't started it is the error.  It has a user namespace, and CDI `devices`.
        """
        more: Mapping[int, Value] = {17: [{1: device} for device in devices]}
        return self.attempt(pod, annotations, script, more)

    def attempt(
        self,
        pod: str,
        annotations: Mapping[str, str],
        script: str,
        more: Mapping[int, Value],
        *,
        host_users: bool = False,
    ) -> tuple[bool, str]:
        """The same, with `more` fields of ContainerConfig, or without a user namespace."""
        self._attempts += 1
        mappings = {1: 100_000, 2: 0, 3: 65_536}
        users: Value = {1: 2} if host_users else {1: 0, 2: mappings, 3: mappings}
        namespaces: Value = {1: 0, 5: users}
        sandbox: Value = {
            1: {1: pod, 2: "0b1c", 3: "monitoring", 4: self._attempts},
            2: pod,
            3: LOGS,
            7: [{1: key, 2: text} for key, text in annotations.items()],
            8: {2: {1: namespaces}},
        }
        created = self.call("RunPodSandbox", {1: sandbox, 2: self._handler})[1].decode()
        container: Value = {
            1: {1: "probe", 2: self._attempts},
            2: {1: "docker.io/library/img:latest"},
            3: ["/bin/sh", "-c", script],
            11: f"{self._attempts}.log",
            15: {2: {1: {1: ["BPF", "NET_ADMIN"]}, 3: namespaces}},
            **more,
        }
        request: dict[int, Value] = {1: created, 2: container, 3: sandbox}
        try:
            identity = self.call("CreateContainer", request)[1].decode()
            self.call("StartContainer", {1: identity})
            while decode(self.call("ContainerStatus", {1: identity})[1]).get(3) != EXITED:
                time.sleep(0.05)
        except grpc.RpcError as error:
            return False, error.details()
        finally:
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                self.call(method, {1: created})
        return True, Path(LOGS, f"{self._attempts}.log").read_text()

"""libbpf in a user namespace of its own, where each load has a token of its own.

Without an engine: a process that has left the host's user namespace makes a bpffs for every load,
which this one delegates to, as the hook's two halves do.  That takes a few milliseconds, and so
thousands of loads are feasible.  Maps are pinned in there, too.

    python -m tests.support.tokens LIBRARY SOCKET NAMESPACES

is that process; it loads each object in a child with the capabilities that the load may have.
"""

import array
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from oci_bpf_hook.kernel import syscalls
from tests.consumer.load import Libbpf, load
from tests.support.places import ROOT

from .consumer import Report, library
from .engines import FIRST_ID, ID_COUNT, Closing

_CLONE_NEWNET: Final = 0x40000000
_NAMESPACES: Final = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | _CLONE_NEWNET
# A message, and so a report, is smaller than a socket's buffer.
_LONGEST: Final = 1 << 18
_CAPABILITY_VERSION: Final = 0x20080522


class Loads(Closing):
    """Loads of objects, one after the other; on the `host`, or each through a token."""

    def __init__(self, *, host: bool = False) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd, flags = str(theirs.fileno()), str(0 if host else _NAMESPACES)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(library()), fd, flags],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )
        assert self._socket.recv(1) == b"u"
        if not host:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{self._process.pid}/{name}").write_text(f"0 {FIRST_ID} {ID_COUNT}\n")
        self._socket.send(b"m")

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def load(
        self,
        path: Path,
        masks: Mapping[str, int] | None = None,
        capabilities: Collection[int] | None = None,
        skip: Collection[str] = (),
    ) -> Report:
        """What becomes of the object `path` without the programs to `skip`.

        `masks` are what is delegated, None on the host; `capabilities` are numbers, None is all.
        """
        request = {
            "path": str(path),
            "token": masks is not None,
            "capabilities": None if capabilities is None else list(capabilities),
            "skip": list(skip),
        }
        with self._lock:
            self._socket.send(json.dumps(request).encode())
            if masks is not None:
                self._delegate(masks)
            report: Report = json.loads(self._socket.recv(_LONGEST))
        return report

    def _delegate(self, masks: Mapping[str, int]) -> None:
        context = _receive_fd(self._socket)
        for option, mask in masks.items():
            value = f"{mask:#x}".encode()
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, option.encode(), value)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        mount = syscalls.fsmount(context, 0)
        socket.send_fds(self._socket, [b"f"], [mount])
        os.close(mount)
        os.close(context)


def _receive_fd(end: socket.socket) -> int:
    _, fds, _, _ = socket.recv_fds(end, 1, 1)
    return fds[0]


# ------------------------------------------------------------------- the other process


def _limit(capabilities: list[int]) -> None:
    """Have only these capabilities, as a container's process has its own."""
    mask = sum(1 << number for number in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = array.array("I", [_CAPABILITY_VERSION, 0])
    data = array.array("I", [low, low, 0, high, high, 0])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(_at(header), _at(data)):
        raise OSError(ctypes.get_errno(), "capset")


def _at(numbers: "array.array[int]") -> ctypes.c_void_p:
    return ctypes.c_void_p(numbers.buffer_info()[0])


def _run(libbpf: Libbpf, request: dict[str, Any], mount: int, out: int) -> None:
    # An empty path keeps libbpf from looking for a token.
    os.environ["LIBBPF_BPF_TOKEN_PATH"] = f"/proc/self/fd/{mount}" if request["token"] else ""
    if request["capabilities"] is not None:
        _limit(request["capabilities"])
    pins = f"/proc/self/fd/{mount}"
    report = load(libbpf, request["path"], skip=request["skip"], pins=pins)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(report, file)


def _serve(libbpf: Libbpf, end: socket.socket) -> None:
    while message := end.recv(_LONGEST):
        request = json.loads(message)
        context = syscalls.fsopen(b"bpf")
        if request["token"]:
            socket.send_fds(end, [b"c"], [context])
            mount = _receive_fd(end)
        else:
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
            mount = syscalls.fsmount(context, 0)
        os.close(context)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                _run(libbpf, request, mount, writer)
            finally:
                os._exit(0)
        os.close(writer)
        os.close(mount)
        with open(reader, "rb") as file:
            answer = file.read()
        os.waitpid(pid, 0)
        end.send(answer or b'{"result": "died", "log": []}')


def main() -> None:
    path, fd, flags = sys.argv[1:]
    libbpf = Libbpf(path)
    end = socket.socket(fileno=int(fd))
    if int(flags):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(int(flags)):
            raise OSError(ctypes.get_errno(), "unshare")
    end.send(b"u")
    assert end.recv(1) == b"m"
    if int(flags):
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    _serve(libbpf, end)


if __name__ == "__main__":
    main()

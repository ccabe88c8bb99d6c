"""Docker's containers: its namespaces in containerd, and what its API says of their names."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from oci_bpf_hook.running import docker
from tests.support.places import ROOT

# `GET /containers/json` of Docker 28.5.2 with userns-remap (Debian sid, November 2026), which ran
# `docker run --name web img sleep 300`.
CONTAINERS = (ROOT / "tests" / "data" / "docker" / "containers.json").read_bytes()
IDENTITY = "499f5aa4f1a25e305fbf23ca3782f7f1d49accdbcd54317df9c28ab4c1271366"
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@contextmanager
def dockerd(*answers: bytes) -> Iterator[str]:
    """The path of a socket of root's that answers so, one connection after the other."""
    path = Path("/run", f"docker-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = Thread(target=_answer, args=(listening, answers))
        thread.start()
        try:
            yield str(path)
        finally:
            path.unlink()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(listening: socket.socket, answers: tuple[bytes, ...]) -> None:
    for answer in answers:
        try:
            sock, _ = listening.accept()
        except OSError:  # Nobody has asked.
            return
        with sock:
            asked = sock.recv(4096)
            assert asked.startswith(b"GET /containers/json HTTP/1.0\r\n")
            sock.sendall(answer)


def test_names() -> None:
    with dockerd(OK + CONTAINERS) as path:
        assert docker.names(path) == {IDENTITY: ("web", "img")}


def test_a_container_that_others_link_to() -> None:
    linked = json.loads(CONTAINERS)
    linked[0]["Names"] = ["/other/alias", "/web"]
    with dockerd(OK + json.dumps(linked).encode()) as path:
        assert docker.names(path) == {IDENTITY: ("web", "img")}


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"x", OK, OK + b"{}", OK + b"[1, {}]", OK + b'[{"Names": []}]', OK + b"[" * 100_000),
        b"HTTP/1.0 503 Service Unavailable\r\n\r\n" + CONTAINERS,
    ],
)
def test_odd_answers(answer: bytes) -> None:
    with dockerd(answer) as path:
        assert docker.names(path) == {}


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert docker.names(str(tmp_path / "none")) == {}
    path = Path("/run", f"docker-{os.getpid()}")
    path.write_text("")
    assert docker.names(str(path)) == {}
    path.unlink()
    monkeypatch.setattr(docker, "_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        assert docker.names(str(path)) == {}
    path.unlink()


def test_a_socket_of_somebody_else_s() -> None:
    with dockerd(OK + CONTAINERS) as path:
        os.chown(path, 61996, 61996)
        assert docker.names(path) == {}


@pytest.mark.parametrize(
    ("namespace", "ours"),
    [
        *(("moby", True), ("moby-100000.100000", True), ("moby-0.0", True)),
        *(("plugins.moby", False), ("moby-", False), ("moby-1.", False), ("k8s.io", False)),
        *(("moby-1.2.3", False), (None, False)),
    ],
)
def test_namespaces(namespace: str | None, ours: bool) -> None:
    assert docker.is_namespace(namespace) is ours

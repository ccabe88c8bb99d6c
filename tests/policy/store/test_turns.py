"""Several who start at once: one compiles the policy, nobody waits for long, all see it whole."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.policy.store import source
from tests.support.policyplace import DENY, Place
from tests.support.processes import children
from tests.support.subjects import subject as asker


def test_one_compiles_for_all_who_start_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(DENY.format(name="one"))
    done = place.run.with_name("done")
    compile_policy = source.compile_policy

    def slow(*arguments: Any) -> bytes:
        with done.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return compile_policy(*arguments)

    monkeypatch.setattr(source, "compile_policy", slow)
    context = multiprocessing.get_context("fork")
    hooks = [context.Process(target=place.policy) for _ in range(8)]
    for hook in hooks:
        hook.start()
    for hook in hooks:
        hook.join()
        assert hook.exitcode == 0
    assert done.read_text() == "x"
    assert place.name() == "one"


def test_who_is_killed_while_it_compiles_leaves_a_compiled_policy(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an engine's timeout, on a host where compiling takes longer than that, each time."""
    place.write(DENY.format(name="one"))
    own, (begun, begins), (ended, ends) = os.getpid(), os.pipe(), os.pipe()
    compile_ = source._compile

    def slow(*arguments: Any) -> bytes:
        if os.getppid() == own:
            os.write(begins, b".")
            signal.pause()
        # What the runtime reads has an end, and so have the container's own files.
        assert os.path.realpath("/proc/self/fd/1") == "/dev/null"
        assert not os.path.exists(f"/proc/self/fd/{ends}")
        return compile_(*arguments)

    monkeypatch.setattr(source, "_compile", slow)
    hook = multiprocessing.get_context("fork").Process(target=place.policy)
    hook.start()
    assert os.read(begun, 1)
    assert not place.cache.exists()
    hook.kill()
    hook.join()
    os.close(ends)
    assert os.read(ended, 1) == b""
    until = time.monotonic() + 60
    while not place.cache.exists():
        assert time.monotonic() < until
    monkeypatch.setattr(source, "_compile", None)
    assert place.name() == "one"
    for fd in (begun, begins, ended):
        os.close(fd)


def test_who_isn_t_killed_leaves_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests may have left processes to this one.
    before = children(os.getpid())
    place.write(DENY.format(name="one"))
    assert place.name() == "one"
    place.write("rules: [")
    with pytest.raises(HookError):
        place.policy()
    assert children(os.getpid()) == before


@pytest.mark.parametrize("kept", [True, False])
def test_a_turn_that_doesn_t_end(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    """Who holds it may have been stopped: nobody's container waits for that."""
    place.write(DENY.format(name="one"))
    place.policy()
    whole = place.cache.read_bytes()
    place.cache.unlink()
    monkeypatch.setattr(source, "_PATIENCE", 0.3)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, place.cache.with_name(".lock")], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        since = time.monotonic()
        if kept:
            place.cache.write_bytes(whole)
            place.cache.chmod(0o600)
            monkeypatch.setattr(source, "compile_policy", None)
        assert place.name() == "one"
        assert (time.monotonic() - since >= 0.3) is not kept
        holder.kill()


HOLD = """
import os, sys, time
file = open(sys.argv[1], "r+")
os.lockf(file.fileno(), os.F_LOCK, 0)
print(flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ["directory", "link"])
def test_no_turn_to_be_had(place: Place, what: str) -> None:
    place.write(DENY.format(name="one"))
    place.run.mkdir()
    lock = place.run / ".lock"
    if what == "directory":
        lock.mkdir()
    else:
        lock.symlink_to(place.etc)
    assert place.name() == "one"
    assert place.cache.exists()


def test_a_policy_is_seen_whole_while_it_changes(place: Place) -> None:
    names = ["a" * 20, "b" * 40]
    texts = [
        "version: 1\nrules:\n" + "".join(f"- name: {name}{n}\n  deny: x\n" for n in range(50))
        for name in names
    ]
    place.write(texts[0])
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for text in texts:
                place.write(text)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            seen = {rule["name"].rstrip("0123456789") for rule in place.policy().rules(asker())}
            assert len(seen) == 1
    finally:
        stop.set()
        thread.join()

"""Sessions with real engines, played again in both dialects, whole and in small pieces.

tests/kubernetes/inside.py has recorded them: a container whose pod doesn't ask, one whose pod does,
and one that is refused.
"""

import re
from pathlib import Path

import pytest

from oci_bpf_hook.nri.wire.protobuf import Message
from oci_bpf_hook.nri.wire.ttrpc import Response
from tests.support.nri import (
    SESSIONS,
    Exchange,
    Plugin,
    creation,
    nothing_left,
    of_new_dialect,
    of_process,
    session,
)
from tests.support.scratch import Scratch

ASKS = b"io.bpffs.delegate_cmds"


def lasting(answer: Response) -> Response:
    """The answer without the list of keys in it, to which versions add."""
    message = re.sub(r"(the known keys are ).*(?= \()", r"\1...", answer.message)
    return Response(code=answer.code, message=message, payload=answer.payload)


def in_dialect(path: Path, *, new: bool) -> list[Exchange]:
    found = session(path)
    return [of_new_dialect(one) for one in found] if new else found


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("size", [1 << 20, 1000, 7])
@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_it_answers_as_it_did(path: Path, size: int, new: bool) -> None:
    with Scratch(mount=False, network=True) as pod, Plugin(size=size) as plugin:
        begun = plugin.accept()
        with begun.sock:
            registration = begun.register()
            assert (registration.text(1), registration.text(2)) == ("oci-bpf-hook", "80")
            granted = refused = 0
            for one in in_dialect(path, new=new):
                payload = one.payload
                if one.method == "CreateContainer" and ASKS in payload:
                    # The pod of the recording isn't there any more.
                    payload = creation(payload, namespaces=of_process(pod.init.pid))
                answer = begun.call(one.method, payload)
                assert lasting(answer) == lasting(one.answer)
                granted += bool(answer.payload) and one.method == "CreateContainer"
                refused += bool(answer.code)
            assert (granted, refused) == (1, 1)
            plugin.process.terminate()
            assert plugin.process.wait(30) == 0
        assert nothing_left()


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_the_recordings_have_what_they_should(path: Path) -> None:
    methods = [one.method for one in session(path)]
    assert methods[:3] == ["Configure", "Synchronize", "CreateContainer"]
    assert {"StateChange", "StopContainer"} <= set(methods)
    assert Message(session(path)[0].answer.payload).number(2) == 0x628

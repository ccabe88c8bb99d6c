"""perf_event_open(2) in a trace: what the real strace writes of it, and what record then says."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.bpf import attaching
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.recording.files import from_strace, load
from oci_bpf_hook.recording.learn import learn
from oci_bpf_hook.resources import schema
from tests.support.command import command
from tests.support.places import ROOT

ENUMS = kernel.enums(KINDS)
MAP = 'bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, map_name="a"}, 80) = 3\n'
# A tracepoint, a perf buffer, a software clock, and a type that only a PMU has, for which a
# kernel may have none.
EVENTS = ((2, 1), (1, 10), (1, 0), (0x7FFFFFFE, 0))
OPEN = """
import struct, sys
from oci_bpf_hook.recording.live.syscalls import perf_event_open
for words in sys.argv[1:]:
    kind, config = map(int, words.split(":"))
    try:
        perf_event_open(struct.pack("=IIQ104x", kind, 120, config), 0)
    except OSError:
        pass
"""


@pytest.mark.parametrize("options", [[], ["-f", "-v"], ["-X", "verbose"], ["-X", "raw"]], ids=str)
def test_what_strace_writes(options: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    events = [f"{kind}:{config}" for kind, config in EVENTS]
    subprocess.run(
        [
            *("strace", *options, "-e", "trace=bpf,perf_event_open", "-o", str(trace)),
            *(sys.executable, "-c", OPEN, *events),
        ],
        cwd=ROOT,
        check=True,
    )
    with open(trace, "a", encoding="utf-8") as file:
        file.write(MAP)
    found = from_strace(str(trace), ENUMS)
    assert found.perf_events == {"tracepoint": 1, "buffer": 1, "event": 1, "probe": 1}
    attach, buffer = learn(found, ENUMS).warnings
    assert (attach.code, buffer.code) == ("perf-attach", "perf-buffer")
    assert attach.text.startswith("its tracepoints, its kprobes or uprobes, its perf events: ")
    assert attaching.WHY in attach.text
    assert attaching.FIX in attach.text
    assert "its perf buffers are filled through perf_event_open(2)" in buffer.text


def test_it_is_kept_in_the_recording(tmp_path: Path) -> None:
    trace, saved = tmp_path / "trace", tmp_path / "saved.json"
    call = "perf_event_open({type=PERF_TYPE_TRACEPOINT, size=0x88, config=7}, -1, 0, -1, 0)"
    trace.write_text(f"{call} = -1 EACCES (Permission denied)\n{MAP}")
    done = command("record", "--from-strace", trace, "--save", saved)
    assert done.returncode == 0, done.stderr
    assert "perf-attach: its tracepoints: attaching needs perf_event_open(2)" in done.stdout
    jsonschema.validate(json.loads(saved.read_text()), schema("recording"))
    assert load(str(saved), ENUMS).perf_events == {"tracepoint": 1}
    again = command("record", "--from", saved)
    assert "perf-attach: its tracepoints: " in again.stdout


def test_a_trace_without_such_calls(tmp_path: Path) -> None:
    """A program that prints the name of the call doesn't make it."""
    trace, saved = tmp_path / "trace", tmp_path / "saved.json"
    trace.write_text(f"perf_event_open() failed\n{MAP}")
    done = command("record", "--from-strace", trace, "--save", saved)
    assert done.returncode == 0, done.stderr
    assert "perf" not in done.stdout + saved.read_text()

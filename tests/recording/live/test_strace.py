"""Traces of strace: those that the real one makes here, and what is left of them when damaged."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.recording.files import from_strace
from oci_bpf_hook.recording.learn import learn
from oci_bpf_hook.recording.recording import Recording, RecordingError, from_json
from oci_bpf_hook.recording.strace import calls
from tests.support import recorder
from tests.support.consumer import Consumer
from tests.support.podman import World

ENUMS = kernel.enums(KINDS)
STRACE = ("strace", "-f", "-v", "-e", "trace=bpf")
# Of strace 6.1; the first two as one thread interrupts the other.
LINES = """\
[pid 12] bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, key_size=4, value_size=8, \
max_entries=1, map_flags=0x10000 /* BPF_F_??? */, map_name="a{b,", map_extra=0}, 80 <unfinished ...>
[pid 13] bpf(BPF_MAP_FREEZE, {map_fd=12}, 4) = 0
[pid 12] <... bpf resumed>) = 5
[pid 12] bpf(0x24 /* BPF_??? */, 0x7fff765d1f50, 8) = -1 EINVAL (Invalid argument)
[pid 12] bpf(BPF_MAP_CREATE, NULL, 80) = -1 EFAULT (Bad address)
[pid 12] bpf(BPF_BTF_LOAD, {btf="\\237\\353\\1"..., btf_size=45, btf_log_level=0}, 40) = 3
[pid 12] --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---
[pid 12] bpf(BPF_LINK_CREATE, {link_create={prog_fd=3, attach_type=BPF_XDP}}, 16) = ?
[pid 12] +++ killed by SIGKILL +++
"""


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    with World() as world:
        yield Consumer(world, ("xdp_firewall", "raw_tp"))


def needs(recording: Recording, *, exact: bool = False) -> dict[str, list[str]]:
    return learn(recording, ENUMS, exact=exact).lists(ENUMS)


@pytest.mark.parametrize("name", ["xdp_firewall", "raw_tp"])
def test_a_trace_says_what_a_recording_says(consumer: Consumer, tmp_path: Path, name: str) -> None:
    """With a token, and of the host's root without one."""
    program = consumer.loading([name])
    trace, host = str(tmp_path / "trace"), str(tmp_path / "host")
    assert recorder.record(*STRACE, "-o", trace, *program).code == 0
    subprocess.run(
        [*STRACE, "-o", host, *program],
        env={"PATH": "/usr/bin:/bin", "LIBBPF_BPF_TOKEN_PATH": ""},
        capture_output=True,
        check=True,
    )
    recorded = from_json(recorder.record(*program).recording, ENUMS)
    for path in (trace, host):
        for exact in (False, True):
            found = from_strace(path, ENUMS)
            assert needs(found, exact=exact) == needs(recorded, exact=exact)


def test_on_standard_error_and_with_times(tmp_path: Path) -> None:
    """As strace writes without -o, with the program's own words between."""
    done = recorder.record("strace", "-tt", *STRACE[1:], recorder.calls(), "threads", "3", "2")
    trace = tmp_path / "trace"
    trace.write_text(done.stderr)
    recording = from_strace(str(trace), ENUMS)
    made = {entry: count for entry, count in recording.entries.items() if entry.cmd == 0}
    assert list(made.values()) == [6]
    (entry,) = made
    assert (entry.map_type, entry.token, entry.result) == (2, True, "ok")


@pytest.mark.parametrize(
    "options",
    [
        *(["-T"], ["-r"], ["-i"], ["-n"], ["-Y"], ["-t"], ["-ttt"], ["-y"], ["-yy"], ["-k"]),
        *(["-r", "-tt"], ["-n", "-i", "-tt", "-T", "-Y"], ["-X", "verbose"], ["-X", "raw"]),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("follow", [["-f"], []], ids=["-f", "alone"])
def test_what_else_it_can_show(options: list[str], follow: list[str], tmp_path: Path) -> None:
    """What people are used to add: times, numbers, names."""
    trace = tmp_path / "trace"
    more = ["-v", "-e", "trace=bpf", "-o", str(trace)]
    program = ["threads", "3", "2"] if follow else ["map", "6"]
    recorder.record("strace", *follow, *options, *more, recorder.calls(), *program)
    recording = from_strace(str(trace), ENUMS)
    made = [(one, count) for one, count in recording.entries.items() if one.cmd == 0]
    ((entry, count),) = made
    assert (entry.map_type, entry.token, entry.result, count) == (2, True, "ok", 6)


@pytest.mark.parametrize("name", ["xdp_firewall", "raw_tp"])
def test_without_v(consumer: Consumer, tmp_path: Path, name: str) -> None:
    """Every load counts, probes too, so nothing is missing from the lists; the cost is said."""
    program = consumer.loading([name])
    traces = {options: str(tmp_path / f"trace{options}") for options in ("", "-v")}
    for options, trace in traces.items():
        command = ["strace", "-f", *options.split(), "-e", "trace=bpf", "-o", trace, *program]
        assert recorder.record(*command).code == 0
    brief, verbose = (from_strace(traces[options], ENUMS) for options in ("", "-v"))
    for exact in (False, True):
        found, wanted = needs(brief, exact=exact), needs(verbose, exact=exact)
        for option in (kind.option for kind in KINDS):
            assert set(wanted[option]) <= set(found[option])
    assert "socket_filter" in needs(brief)["delegate_progs"]
    # Only the one that libbpf gives a name is told from the program's own.
    assert {entry.probe for entry in brief.entries if entry.unseen} == {"", "prog_name"}
    said = [one.text for one in learn(brief, ENUMS).warnings if one.code == "without-instructions"]
    assert said
    assert re.match(r"\d+ loads of programs came without the instructions, so every", said[0])
    assert "without-instructions" not in {one.code for one in learn(verbose, ENUMS).warnings}
    # It is said of what was saved of it, too.
    saved = str(tmp_path / "saved")
    done = recorder.command("record", "--from-strace", traces[""], "--save", saved)
    again = recorder.command("record", "--from", saved)
    assert done.returncode == 0, done.stderr
    assert f"without-instructions: {said[0]}" in done.stdout
    assert again.stdout == done.stdout


@pytest.mark.parametrize("flags", ["0", "0x10000 /* BPF_F_??? */"])
@pytest.mark.parametrize("late", [False, True])
def test_a_token_that_is_not_shown(flags: str, late: bool) -> None:
    """Without -v, strace 6.1 leaves out the flags of BTF: it had a token if anything had one."""
    types = 'bpf(BPF_BTF_LOAD, {btf="x"..., btf_size=999, btf_log_level=0, ...}, 40) = 3'
    made = f"bpf(BPF_MAP_CREATE, {{map_type=BPF_MAP_TYPE_HASH, map_flags={flags}, ...}}, 80) = 4"
    found = read("\n".join([types, made, types] if late else [made, types]))
    assert {entry.token for entry in found.entries} == {flags != "0"}
    assert sum(found.entries.values()) == (3 if late else 2)


def test_some_without_instructions() -> None:
    """Only those count as unseen that have some."""
    line = "bpf(BPF_PROG_LOAD, {prog_type=BPF_PROG_TYPE_XDP, insn_cnt=%s, insns=%s}, 148) = %s"
    one = "[{code=BPF_JMP|BPF_K|BPF_EXIT, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0}]"
    lines = [(2, "0x7ffe", 3), (2, "0x7ffe", "-1 EPERM (x)"), (1, one, 3), (0, "NULL", 4)]
    found = read("\n".join(line % values for values in lines))
    unseen = {(entry.result, entry.unseen): count for entry, count in found.entries.items()}
    assert unseen == {("ok", True): 1, ("EPERM", True): 1, ("ok", False): 2}


def read(text: str) -> Recording:
    recording = Recording(["trace"])
    for call in calls(text.splitlines(), ENUMS):
        recording.add(call)
    recording.end()
    return recording


def test_lines() -> None:
    # A thread's calls are in their order, those of several in none.
    found = {
        (entry.cmd, entry.map_type, entry.name, entry.token, entry.result, entry.probe)
        for entry in read(LINES).entries
    }
    assert found == {
        (22, None, "", False, "ok", ""),
        (0, 1, "a{b,", True, "ok", ""),
        (36, None, "", False, "EINVAL", ""),
        (0, None, "", False, "EFAULT", ""),
        (18, None, "", False, "ok", "btf"),
        (28, None, "", False, None, ""),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no call of bpf(2) in it"),
        ("open(x) = 3", "there is no call of bpf(2) in it"),
        ("bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH", "isn't a whole call"),
        ("bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, 80) = 3", "} is missing at the end"),
        ("bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HAHS}, 80) = 3", "isn't a number"),
        ("bpf(BPF_MAP_CREATE, 0x7ffe, 80) = 3", "the call's arguments are missing"),
        ("bpf(BPF_MAP_CREATE, {}, 80) = -1 EWHAT (What)", "'EWHAT' isn't an errno"),
        ("bpf(" + "{a=" * 40 + ", 80) = 3", "nested too deeply"),
    ],
)
def test_what_is_no_trace(text: str, words: str) -> None:
    with pytest.raises(RecordingError) as caught:
        read(text)
    assert words in str(caught.value)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """Any cut, doubling or replacement is read or refused, and never anything else."""
    text = LINES
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        middle = data.draw(st.text(st.sampled_from('{}[](),="\\x0a|/* <>.\n'), max_size=4))
        text = text[:start] + middle + text[end:]
    try:
        read(text)
    except RecordingError:
        pass

"""seccomp.py: filters run here say what they say to the kernel."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.kernel import seccomp
from oci_bpf_hook.kernel.seccomp import FilterError, answer

X86 = 0xC000003E
BPF = 321


def program(*code: tuple[int, int, int, int]) -> bytes:
    return b"".join(pack("=HBBI", *one) for one in code)


LOAD_NR = (0x20, 0, 0, 0)
LOAD_ARCH = (0x20, 0, 0, 4)
LOAD_COMMAND = (0x20, 0, 0, 16)
ALLOW = (0x06, 0, 0, seccomp.ALLOW)
EPERM = (0x06, 0, 0, seccomp.ERRNO | 1)
KILL = (0x06, 0, 0, seccomp.KILL_PROCESS)
# As an engine's: another architecture is killed, bpf(2) gets EPERM.
NO_BPF = program(LOAD_ARCH, (0x15, 1, 0, X86), KILL, LOAD_NR, (0x15, 0, 1, BPF), EPERM, ALLOW)


def ask(*filters: bytes, number: int = BPF, arch: int = X86, command: int = 36) -> seccomp.Answer:
    return answer(list(filters), number, arch, (command,))


def test_a_filter_against_bpf() -> None:
    refused = ask(NO_BPF)
    assert (refused.action, refused.errno, refused.allows) == (seccomp.ERRNO, 1, False)
    assert str(refused) == "returns errno 1"
    assert ask(NO_BPF, number=0).allows
    assert str(ask(NO_BPF, arch=1)) == "kills the process"


def test_no_filter() -> None:
    assert ask().allows


def test_a_filter_on_the_command() -> None:
    only_maps = program(LOAD_COMMAND, (0x15, 0, 1, 0), ALLOW, EPERM)
    assert ask(only_maps, command=0).allows
    assert not ask(only_maps, command=36).allows


@pytest.mark.parametrize(
    ("results", "worst"),
    [
        ((seccomp.ALLOW, seccomp.ERRNO | 1), seccomp.ERRNO),
        ((seccomp.ERRNO | 1, seccomp.KILL_THREAD), seccomp.KILL_THREAD),
        ((seccomp.KILL_THREAD, seccomp.KILL_PROCESS), seccomp.KILL_PROCESS),
        ((seccomp.LOG, seccomp.ALLOW), seccomp.LOG),
        ((seccomp.USER_NOTIF, seccomp.TRACE), seccomp.USER_NOTIF),
        ((seccomp.TRAP, seccomp.ERRNO), seccomp.TRAP),
    ],
)
def test_the_most_severe_answer_counts(results: tuple[int, ...], worst: int) -> None:
    filters = [program((0x06, 0, 0, result)) for result in results]
    assert ask(*filters).action == worst
    assert ask(*reversed(filters)).action == worst


@pytest.mark.parametrize(
    ("code", "result"),
    [
        # A = 6; A op 3
        *(
            (((0x00, 0, 0, 6), (0x04 | kind, 0, 0, 3), (0x16, 0, 0, 0)), value)
            for kind, value in (
                (0x00, 9),
                (0x10, 3),
                (0x20, 18),
                (0x30, 2),
                (0x40, 7),
                (0x50, 2),
                (0x60, 48),
                (0x70, 0),
                (0xA0, 5),
                (0x80, (1 << 32) - 6),
            )
        ),
        # X = 4; M[3] = X; A = 1; A = M[3]; TAX; A = 0; TXA
        (
            (
                *((0x01, 0, 0, 4), (0x03, 0, 0, 3), (0x00, 0, 0, 1), (0x60, 0, 0, 3)),
                *((0x07, 0, 0, 0), (0x00, 0, 0, 0), (0x87, 0, 0, 0), (0x16, 0, 0, 0)),
            ),
            4,
        ),
        # M[2] = A; X = M[2]; A += X
        (((0x00, 0, 0, 5), (0x02, 0, 0, 2), (0x61, 0, 0, 2), (0x0C, 0, 0, 0), (0x16, 0, 0, 0)), 10),
        # A = len; jump over a return
        (((0x80, 0, 0, 0), (0x05, 0, 0, 1), (0x06, 0, 0, 1), (0x16, 0, 0, 0)), 64),
        # A = 5; greater, greater or equal, any bit of
        *(
            (((0x00, 0, 0, 5), (kind, 0, 1, k), (0x06, 0, 0, 1), (0x06, 0, 0, 2)), value)
            for kind, k, value in (
                (0x25, 5, 2),
                (0x25, 4, 1),
                (0x35, 5, 1),
                (0x45, 4, 1),
                (0x45, 2, 2),
            )
        ),
        # DIV by X = 0
        (((0x00, 0, 0, 5), (0x01, 0, 0, 0), (0x3C, 0, 0, 0), (0x16, 0, 0, 0)), 0),
    ],
)
def test_instructions(code: tuple[tuple[int, int, int, int], ...], result: int) -> None:
    found = ask(program(*code))
    assert found.action | found.errno == result


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"123",
        program(LOAD_NR),
        program((0x20, 0, 0, 64), ALLOW),
        program((0x60, 0, 0, 16), ALLOW),
        program((0x05, 0, 0, 9), ALLOW),
        program((0x55, 0, 0, 0), ALLOW),
        program((0x94, 0, 0, 0), ALLOW),
    ],
)
def test_what_is_no_filter(bad: bytes) -> None:
    with pytest.raises(FilterError):
        ask(bad)


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=40))
def test_any_filter(code: list[bytes]) -> None:
    try:
        ask(b"".join(code))
    except FilterError:
        pass

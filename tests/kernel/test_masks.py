"""What the kernel makes of masks and names, against what we make of them."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import ALL_BITS, KINDS, Kind
from oci_bpf_hook.delegation.masks import differences, resolve, show
from tests.delegation.test_masks import BY_KIND, HERE, grant, no_table, read

_MOUNTER = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
directory = sys.argv[1].encode()
check(libc.unshare(0x20000))
check(libc.mount(b"none", b"/", None, ctypes.c_ulong(0x4000 | 1 << 18), None))
for line in sys.stdin:
    check(libc.mount(b"bpf", directory, b"bpf", ctypes.c_ulong(0), json.loads(line).encode()))
    with open("/proc/self/mountinfo") as file:
        (mount,) = [line for line in file if line.split()[4] == sys.argv[1]]
    check(libc.umount2(directory, 2))
    print(json.dumps(mount.split()[-1]), flush=True)
"""


class Kernel:
    """Mounts real bpffs instances, one after the other, in a mount namespace of its own."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _MOUNTER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def shows(self, options: Mapping[str, str]) -> list[str]:
        """The options of a bpffs mounted with `options`, as mountinfo has them."""
        assert self._process.stdin
        assert self._process.stdout
        text = ",".join(f"{key}={value}" for key, value in options.items())
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        shown: str = json.loads(self._process.stdout.readline())
        return shown.split(",")


@pytest.fixture(scope="module")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel(tmp_path_factory.mktemp("bpffs")) as mounter:
        yield mounter


MASKS = st.fixed_dictionaries(
    {},
    optional={
        kind.option: st.integers(1, ALL_BITS)
        | st.integers(0, 63).map(lambda bit: 1 << bit)
        | st.integers(0, 63).map(lambda bit: ALL_BITS & ~(1 << bit))
        | st.integers(1, HERE[kind.option].known)
        | st.sampled_from([ALL_BITS, HERE[kind.option].known, HERE[kind.option].known | 1 << 63])
        for kind in KINDS
    },
)


@settings(deadline=None)
@given(MASKS)
def test_what_a_real_bpffs_shows_is_what_was_granted(bpffs: Kernel, masks: dict[str, int]) -> None:
    shown = bpffs.shows({option: f"{bits:#x}" for option, bits in masks.items()})
    assert differences(grant(**masks), shown, HERE) == []
    found = dict(item.partition("=")[::2] for item in shown)
    for kind in KINDS:
        enum = HERE[kind.option]
        # The bits without a name are not shown; for the others, show() has the kernel's words.
        assert found.get(kind.option, "") == show(masks.get(kind.option, 0) & enum.known, enum)
        for bit in range(64):
            other = dict(masks)
            other[kind.option] = masks.get(kind.option, 0) ^ 1 << bit
            wrong = differences(grant(**other), shown, HERE)
            assert [text.split()[0] for text in wrong] == [kind.option] * (enum.known >> bit & 1)


@BY_KIND
def test_the_kernel_takes_our_words_for_the_same_bits(bpffs: Kernel, kind: Kind) -> None:
    # Each name alone, so that the names' values are the running kernel's by its own word.
    enum = HERE[kind.option]
    for name, value in enum.values.items():
        shown = bpffs.shows({kind.option: name})
        assert differences(grant(**{kind.option: 1 << value}), shown, HERE) == []
        assert f"{kind.option}={enum.names[value]}" in shown


def test_any_of_the_kernel_is_any_of_ours(bpffs: Kernel) -> None:
    shown = bpffs.shows({kind.option: "any" for kind in KINDS})
    granted, _ = resolve(read(**{kind.option: "any" for kind in KINDS}), {}, no_table, {})
    assert differences(granted, shown, {}) == []
    assert differences(granted, shown, HERE) == []


def test_a_plain_bpffs_is_no_grant(bpffs: Kernel) -> None:
    shown = bpffs.shows({"mode": "700"})
    assert differences(grant(), shown, HERE) == []
    for kind in KINDS:
        assert differences(grant(**{kind.option: 1}), shown, HERE) != []

"""mountinfo.py: what a process sees, and what lies over what."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.kernel.mountinfo import Mount, TooManyError, of_interest, read

# A root, two bpffs one over the other, one below a directory that something was mounted over.
TEXT = """\
68 67 8:1 / / rw,relatime - ext4 /dev/vda rw
71 68 0:20 / /sys ro shared:7 master:1 - sysfs sysfs rw
112 71 0:67 / /sys/fs/bpf rw,nosuid - bpf bpf rw,uid=100000,delegate_cmds=any
113 112 0:68 / /sys/fs/bpf rw - bpf bpf rw,delegate_cmds=map_create:prog_load,delegate_maps=0x6
120 68 0:70 /sub /a\\040b/c rw - bpf none rw,delegate_progs=xdp
121 68 0:71 / /a\\040b rw - tmpfs none rw
122 121 0:72 / /a\\040b/c rw - bpf none rw
"""


def parse(text: str, most: int = 1_000_000) -> list[Mount]:
    """All of them."""
    lines = text.encode("utf-8", "surrogatepass").split(b"\n")
    return read(lines, lambda _: True, most=most).kept


def covered(text: str) -> set[int]:
    lines = text.encode("utf-8", "surrogatepass").split(b"\n")
    return read(lines, lambda _: True, most=1_000_000).covered


def test_a_path_that_looks_like_the_end_of_a_line() -> None:
    """A container makes directories with what names it likes; the kernel escapes "\\n" alone."""
    for end in "\r\x0b\x0c\x1c\x85\u2028":
        line = f"112 71 0:67 / /sys/a{end}b rw,nosuid - bpf bpf rw,delegate_cmds=any\n"
        (mount,) = parse(line)
        assert mount.point == f"/sys/a{end}b"
        assert mount.delegates == {"delegate_cmds": "any"}


def test_as_many_as_there_may_be() -> None:
    """One on the other, at one place: a container's root can make a hundred thousand."""
    many = [
        f"{2 + n} {1 + n} 0:{n} / /deep/x rw - bpf bpf rw,delegate_cmds=any\n"
        for n in range(99_999)
    ]
    text = "".join(["1 0 8:1 / / rw - ext4 /dev/vda rw\n", *many])
    assert covered(text) == {mount.id for mount in parse(text)[1:-1]}


def test_parse() -> None:
    mounts = {mount.id: mount for mount in parse(TEXT)}
    assert list(mounts) == [68, 71, 112, 113, 120, 121, 122]
    assert mounts[113].delegates == {
        "delegate_cmds": "map_create:prog_load",
        "delegate_maps": "0x6",
    }
    assert mounts[71].delegates == {}
    assert (mounts[120].root, mounts[120].point) == ("/sub", "/a b/c")
    assert mounts[113].device == "0:68"
    assert mounts[112].options["rw"] == ""


def test_covered() -> None:
    assert covered(TEXT) == {112, 120}


def test_one_mount_over_another_hides_what_is_below_the_other() -> None:
    text = (
        "1 0 8:1 / / rw - ext4 a rw\n"
        "2 1 8:2 / /x rw - ext4 b rw\n"
        "3 2 8:3 / /x/y rw - ext4 c rw\n"
        "4 2 8:4 / /x rw - ext4 d rw\n"
    )
    assert covered(text) == {2, 3}


def test_a_loop_ends() -> None:
    text = "1 2 8:1 / /a rw - ext4 a rw\n2 1 8:2 / /b rw - ext4 b rw\n"
    assert covered(text) == set()


def test_what_is_of_interest() -> None:
    lines = TEXT.encode().split(b"\n")
    assert [one.id for one in read(lines, of_interest()).kept] == [112, 113, 120]
    assert [one.id for one in read(lines, of_interest("/a b/c")).kept] == [112, 113, 120, 122]
    assert [one.id for one in read(lines, of_interest(devices=["0:71"])).kept][-1] == 121
    # What isn't kept lies over what is.
    assert read(lines, of_interest()).covered == {112, 120}
    odd = "9 1 0:5 / /x\\134y\\011z rw - tmpfs none rw\n"
    assert [one.id for one in read([odd.encode()], of_interest("/x\\y\tz")).kept] == [9]


def test_more_that_delegate_than_any_container_has() -> None:
    with pytest.raises(TooManyError, match="more than 10 mounts that delegate"):
        parse("".join(f"{n} 1 0:5 / /x rw - bpf bpf rw\n" for n in range(2, 20)), most=10)


def test_a_million_of_no_interest() -> None:
    """Of those only what it takes to say what lies over what is kept, a few words each."""

    def lines() -> Iterator[bytes]:
        yield b"1 0 8:1 / / rw - ext4 /dev/vda rw"
        for number in range(2, 50_000):
            yield b"%d 1 0:%d / /%s%d rw - tmpfs none rw" % (number, number, b"x" * 90, number)
        yield b"7 1 0:7 / /b rw - bpf bpf rw,delegate_cmds=any"

    tracemalloc.start()
    try:
        (one,) = read(lines(), of_interest()).kept
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one.point == "/b"
    assert peak < 50_000 * 700


@given(st.text())
def test_any_text(text: str) -> None:
    covered(text)


@given(st.lists(st.sampled_from([*TEXT.split(), "\n"]), max_size=60))
def test_any_line(words: list[str]) -> None:
    covered(" ".join(words))

"""mountinfo.py: what a process sees, and what lies over what."""

from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.mountinfo import covered, parse

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
    mounts = parse("".join(["1 0 8:1 / / rw - ext4 /dev/vda rw\n", *many]))
    assert covered(mounts) == {mount.id for mount in mounts[1:-1]}


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
    assert covered(parse(TEXT)) == {112, 120}


def test_one_mount_over_another_hides_what_is_below_the_other() -> None:
    text = (
        "1 0 8:1 / / rw - ext4 a rw\n"
        "2 1 8:2 / /x rw - ext4 b rw\n"
        "3 2 8:3 / /x/y rw - ext4 c rw\n"
        "4 2 8:4 / /x rw - ext4 d rw\n"
    )
    assert covered(parse(text)) == {2, 3}


def test_a_loop_ends() -> None:
    text = "1 2 8:1 / /a rw - ext4 a rw\n2 1 8:2 / /b rw - ext4 b rw\n"
    assert covered(parse(text)) == set()


@given(st.text())
def test_any_text(text: str) -> None:
    covered(parse(text))


@given(st.lists(st.sampled_from([*TEXT.split(), "\n"]), max_size=60))
def test_any_line(words: list[str]) -> None:
    covered(parse(" ".join(words)))

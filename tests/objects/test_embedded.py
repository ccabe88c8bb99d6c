"""Finding objects in what embeds them."""

import subprocess
from pathlib import Path

from oci_bpf_hook.advise import embedded, objects
from tests.corpus.build import packaged
from tests.support.bpf import compiled

PROGRAM = """
__asm__(".section .rodata\\n.byte 1\\nobject: .incbin \\"object.o\\"\\n.byte 1\\n.text");
extern const char object[];
int main(void) { return object[0]; }
"""


def test_an_object_itself() -> None:
    data = compiled("pinned")
    assert list(embedded.find(data)) == [(0, data)]


def test_anywhere() -> None:
    one, other = compiled("pinned"), compiled("variables", by="clang-be")
    data = b"x" * 7 + one + b"\x7fELF" + b"y" * 100 + other + other + b"\x7fELF"
    found = list(embedded.find(data))
    assert [content for _, content in found] == [one, other, other]
    assert [start for start, _ in found] == [
        7,
        7 + len(one) + 104,
        7 + len(one) + 104 + len(other),
    ]


def test_in_a_program(tmp_path: Path) -> None:
    """As bpf2go and Rust's include_bytes!() have it: at no alignment."""
    (tmp_path / "object.o").write_bytes(compiled("pinned"))
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(["cc", "-o", "program", "program.c"], cwd=tmp_path, check=True)
    ((_, content),) = embedded.find((tmp_path / "program").read_bytes())
    assert content == compiled("pinned")


def test_skeletons() -> None:
    """Debian's libbpf-tools have one each; every object that is found can be read."""
    found = dict(packaged())
    assert {"execsnoop", "opensnoop", "tcplife"} <= found.keys()
    for name, data in found.items():
        one = objects.read(data, name)
        assert one.programs or one.maps


def test_none() -> None:
    assert list(embedded.find(b"")) == []
    assert list(embedded.find(Path("/bin/true").read_bytes())) == []
    assert list(embedded.find(b"\x7fELF\x02\x01" + bytes(64))) == []


def test_cut_short() -> None:
    data = b"x" + compiled("pinned")[:-10]
    ((start, content),) = embedded.find(data)
    assert (start, content) == (1, data[1:])

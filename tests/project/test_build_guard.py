"""contrib/build-guard: the guard's objects, the same wherever they are built."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm.lists import OBJECT
from tests.support.places import ROOT

# By the byte in the ELF header that says the byte order.
OBJECTS = {1: "guard.bpfel.o", 2: "guard.bpfeb.o"}


def checkout(directory: Path) -> Path:
    """What is built from, in a directory of another name."""
    for name in ("contrib/build-guard", "oci_bpf_hook/guard/lsm/guard.bpf.c"):
        (directory / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


def build(
    tree: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "contrib" / "build-guard", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd="/",
    )


def test_two_directories_make_the_same_objects(tmp_path: Path) -> None:
    """Both byte orders, of which the machine's is the one that is loaded."""
    trees = [checkout(tmp_path / name) for name in ("one", "another one/far below")]
    for tree in trees:
        done = build(tree)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        made = {path.name for path in (tree / "oci_bpf_hook" / "guard" / "lsm").iterdir()}
        assert made == {"guard.bpf.c", *OBJECTS.values()}
    for order, name in OBJECTS.items():
        one, other = (
            (tree / "oci_bpf_hook" / "guard" / "lsm" / name).read_bytes() for tree in trees
        )
        assert one == other
        assert one[:7] == b"\x7fELF\x02" + bytes([order, 1])
        for program in guard.LINKS:
            assert f"\0lsm/bpf_{program}\0".encode() in one
        assert b".BTF.ext\0" in one
        assert str(tmp_path).encode() not in one
    assert OBJECTS[1 if sys.byteorder == "little" else 2] == OBJECT.name


@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_instructions_are_taken_apart_in_either_byte_order(tmp_path: Path, target: str) -> None:
    """The compiler knows struct bpf_insn: it folds what is right, and calls what is wrong."""
    clang = shutil.which(os.environ.get("CLANG", "clang"))
    assert clang
    source = tmp_path / "check.c"
    source.write_text(
        f"""
        #include "{ROOT}/oci_bpf_hook/guard/lsm/guard.bpf.c"
        extern void taken_apart_wrongly(void);
        void check(void)
        {{
            struct bpf_insn one = {{.code = 0x85, .dst_reg = 3, .src_reg = 2, .off = 7, .imm = -9}};
            __u64 insn;
            __builtin_memcpy(&insn, &one, sizeof(insn));
            if (CODE_OF(insn) != 0x85 || SRC_OF(insn) != 2 || OFF_OF(insn) != 7 ||
                IMM_OF(insn) != (__u32)-9)
                taken_apart_wrongly();
        }}
        """
    )
    headers = (
        path for path in Path("/usr/include").glob("*-linux-gnu*") if (path / "asm").is_dir()
    )
    words = [
        clang,
        f"--target={target}",
        "-mcpu=v3",
        "-O2",
        "-g",
        *(f"-idirafter{path}" for path in headers),
    ]
    made = tmp_path / "check.o"
    subprocess.run([*words, "-c", str(source), "-o", str(made)], check=True)
    assert b"\0taken_apart_wrongly\0" not in made.read_bytes()


def test_into_another_directory(tmp_path: Path) -> None:
    tree = checkout(tmp_path / "tree")
    output = tmp_path / "output"
    output.mkdir()
    done = build(tree, output)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in output.iterdir()} == set(OBJECTS.values())
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in output.iterdir())
    assert len(list((tree / "oci_bpf_hook" / "guard" / "lsm").iterdir())) == 1


@pytest.mark.parametrize("wrong", ["no compiler", "source", "header"])
def test_what_cant_be_built_leaves_what_was_there(wrong: str, tmp_path: Path) -> None:
    tree = checkout(tmp_path)
    lsm = tree / "oci_bpf_hook" / "guard" / "lsm"
    for name in OBJECTS.values():
        (lsm / name).write_text("as it was")
    environment = {"CLANG": "clang-of-nobody"} if wrong == "no compiler" else {}
    if wrong != "no compiler":
        text = (lsm / "guard.bpf.c").read_text()
        broken = {"source": ("return", "retrun"), "header": ("bpf/bpf_helpers.h", "bpf/none.h")}
        (lsm / "guard.bpf.c").write_text(text.replace(*broken[wrong]))
    done = build(tree, **environment)
    assert done.returncode != 0
    said = {"no compiler": "install clang", "source": "error:", "header": "libbpf-dev"}
    assert said[wrong] in done.stderr
    assert {path.name for path in lsm.iterdir()} == {"guard.bpf.c", *OBJECTS.values()}
    assert {(lsm / name).read_text() for name in OBJECTS.values()} == {"as it was"}


def test_git_has_no_object() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    (pattern,) = (line for line in ignored if line.startswith("/oci_bpf_hook/guard/"))
    form = re.compile(re.escape(pattern[1:]).replace(r"\*", "[^/]*"))
    for name in OBJECTS.values():
        assert form.fullmatch(f"oci_bpf_hook/guard/lsm/{name}")

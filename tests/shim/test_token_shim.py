"""The shim: what it changes for a program, and that it changes nothing else."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import shim
from tests.support.engines import require, run
from tests.support.places import ROOT
from tests.support.shim import Place

LIBCS = sorted(shim.COMPILERS)
# What each situation of situations.c prints with a token for every refused call.
SITUATIONS = {
    "numbers": "numbers ok\n",
    "closed": "first ok\nfull ok\nagain ok\n",
    # A token takes two numbers for a moment: its own, and the bpffs's or the map's.
    "at_limit": "none EPERM\none EPERM\ntwo ok\n",
    "forks": "forks ok\n",
    "vforks": "vfork ok\n",
    "handlers": "handler ok\n",
    "filtered": "filtered EPERM\n",
    "at_the_end": "end ok\n",
    "titled": "titled ok\n",
    # The kernel writes the log's length where the union has a field for it, and nowhere else.
    "logs": "".join(
        f"{size} errno=13 log {'length' if size >= 144 else 'none'} unchanged\n"
        for size in range(128, 153, 4)
    ),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with shim.place() as made:
        yield made


@pytest.mark.parametrize("libc", LIBCS)
@pytest.mark.parametrize("name", SITUATIONS)
def test_a_refused_call_is_repeated_with_a_token(place: Place, name: str, libc: str) -> None:
    program = shim.program("situations", libc=libc)
    without = place.output(program, name, shim=False)
    assert " ok\n" not in without
    assert " log " not in without
    assert place.output(program, name, shim=True) == SITUATIONS[name]


def test_what_isnt_delegated_stays_refused() -> None:
    program = shim.program("situations")
    for changed in ({"delegate_maps": "hash"}, {"delegate_cmds": "prog_load:btf_load"}):
        with shim.place({**shim.SMALL, **changed}) as without_it:
            assert without_it.output(program, "create", shim=True) == "create EPERM\n"


@pytest.mark.parametrize("libc", LIBCS)
def test_the_bpffs_is_where_libbpf_looks(place: Place, libc: str) -> None:
    program = shim.program("situations", libc=libc)

    def created(path: str) -> bool:
        variable = {"LIBBPF_BPF_TOKEN_PATH": path}
        said = place.output(program, "create", shim=True, env=variable)
        return {"create ok\n": True, "create EPERM\n": False}[said]

    other = str(place.container.root / "sys" / "fs" / "bpf")
    assert created(other)
    assert created(other + "/." * 1000)
    assert not created("")
    assert not created("/sys/fs")
    assert not created("/nowhere")
    assert not created(other + "/." * 3000)


def test_a_token_from_elsewhere_alone(place: Place) -> None:
    """Nothing is left to find at the usual place."""
    program = shim.program("situations")
    hidden = ["unshare", "-m", "--", "sh", "-c", 'umount /sys/fs/bpf && exec "$@"', "sh"]
    done = place.run(program, "create", shim=True, prefix=hidden)
    assert (done.stdout, done.stderr) == ("create EPERM\n", "")
    variable = {"LIBBPF_BPF_TOKEN_PATH": str(place.container.root / "sys" / "fs" / "bpf")}
    done = place.run(program, "create", shim=True, prefix=hidden, env=variable)
    assert (done.stdout, done.stderr) == ("create ok\n", "")


def test_it_says_what_it_does_if_it_is_asked_to(place: Place) -> None:
    program = shim.program("situations")
    logs = {"BPF_TOKEN_SHIM_LOG": "1"}
    done = place.run(program, "create", shim=True, env=logs)
    assert done.stdout == "create ok\n"
    assert done.stderr == (
        "libbpf-token-shim: MAP_CREATE was refused; with a token from /sys/fs/bpf: 3\n"
    )
    done = place.run(
        program, "create", shim=True, env={**logs, "LIBBPF_BPF_TOKEN_PATH": "/nowhere"}
    )
    assert done.stdout == "create EPERM\n"
    assert done.stderr == (
        "libbpf-token-shim: MAP_CREATE was refused; there is no token from /nowhere: -2\n"
    )


# Root's namespaces have an /etc of their own, with which each program preloads the shim. What is
# set-user-id there is run by nobody's uid, and would have root's privilege as well as the shim.
_SECURE = """
mount -t tmpfs none /mnt
cp "$1" /mnt/program && chmod 4755 /mnt/program
mkdir /mnt/etc
cp /etc/ld.so.cache /etc/passwd /mnt/etc
echo "$2" >/mnt/etc/ld.so.preload
mount --bind /mnt/etc /etc
/mnt/program create
setpriv --reuid 1 --clear-groups /mnt/program create
"""


def test_nothing_for_a_set_user_id_program() -> None:
    with shim.place() as made:
        program, library = str(shim.program("situations")), str(shim.library())
        done = made.container.enter("sh", "-euc", _SECURE, "sh", program, library)
    assert (done.stdout, done.stderr) == ("create ok\ncreate EPERM\n", "")


@pytest.mark.parametrize("libc", LIBCS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_other_call_is_changed(place: Place, libc: str, seed: int) -> None:
    program = shim.program("fuzz", "-no-pie", libc=libc)
    command = (program, str(seed), "10000", "/sys/fs/bpf")
    lines = [place.output(*command, shim=one).splitlines() for one in (False, True)]
    assert [len(one) for one in lines] == [10000, 10000]
    changed = 0
    succeeded = 0
    for without, with_it in zip(*lines, strict=True):
        number, cmd, size, token, result, error, digest = map(int, without.split())
        succeeded += result >= 0
        if without == with_it:
            continue
        # Refused, of those that take a token, and without one.
        assert (result, error, token) == (-1, 1, 0), f"{without} became {with_it}"
        assert cmd & ~0x10000 in (0, 5, 18, 19), f"{without} became {with_it}"
        assert with_it.split()[:4] == [str(one) for one in (number, cmd, size, token)]
        # Only a log's length is written into the union, and only if the caller's reaches that far.
        written = {5: 144, 18: 32}.get(cmd & ~0x10000)
        assert with_it.split()[6] == str(digest) or (written and size >= written)
        changed += 1
    assert succeeded > 1000
    assert changed > 1000


def test_sanitizers_programs(place: Place) -> None:
    for sanitizer in ("address,undefined", "thread"):
        program = shim.program("situations", f"-fsanitize={sanitizer}")
        said = place.output(program, "create", "numbers", "forks", shim=True)
        assert said == "create ok\n" + SITUATIONS["numbers"] + SITUATIONS["forks"]


def test_what_it_cant_reach(place: Place) -> None:
    """A program without libc's syscall(): one that is static, as Go's are without a libc."""
    program = shim.program("situations", "-static")
    assert place.output(program, "create", shim=True) == "create EPERM\n"


def test_the_libraries_need_no_other(tmp_path: Path) -> None:
    shim.build(tmp_path)
    libraries = sorted(tmp_path.iterdir())
    machines = {"aarch64": "AArch64", "x86_64": "Advanced Micro Devices X86-64"}
    names = [f"libbpf-token-shim.{machine}.so" for machine in machines]
    assert [path.name for path in libraries] == names
    for path, machine in zip(libraries, machines.values(), strict=True):
        assert path.stat().st_mode & 0o777 == 0o644
        said = require(run(["readelf", "-hdlnW", "--dyn-syms", str(path)])).stdout
        assert f"Machine:                           {machine}\n" in said
        assert "(NEEDED)" not in said
        assert "(TEXTREL)" not in said
        assert (
            "GNU_STACK      0x000000 0x0000000000000000 0x0000000000000000 0x000000 0x000000 RW"
            in said
        )
        assert said.count("  LOAD  ") == 2
        assert any(
            words in said for words in ("x86 feature: IBT, SHSTK", "AArch64 feature: BTI, PAC")
        )
        symbols = [
            line.split()[3:] for line in said.splitlines() if line[:7].strip(" 0123456789") == ":"
        ]
        assert sorted(one[-1] for one in symbols if one[3] == "UND" and len(one) == 5) == [
            *("__errno_location", "environ", "getauxval", "gnu_get_libc_version"),
        ]
        assert [one[-1] for one in symbols if one[3] != "UND"] == ["syscall"]


def test_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    made = []
    for name in ("one", "another one/far below"):
        tree = tmp_path / name
        for part in ("contrib/build-shim", "oci_bpf_hook/shim"):
            (tree / part).parent.mkdir(parents=True)
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, tree / part)
        subprocess.run([tree / "contrib" / "build-shim"], check=True, cwd="/")
        made.append([path.read_bytes() for path in sorted(tree.rglob("*.so"))])
    assert len(made[0]) == 2
    assert made[0] == made[1]
    assert not any(str(tmp_path).encode() in one for one in made[0])

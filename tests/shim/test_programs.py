"""Debian's programs, whose libbpf knows no tokens: each is refused without the shim, works with it,
and is refused whatever isn't delegated all the same."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support import shim
from tests.support.bpf import compiled
from tests.support.engines import require
from tests.support.shim import Place

ALL: Final = dict.fromkeys(("cmds", "maps", "progs", "attachs"), "any")
REFUSED: Final = "not permitted"


class Case(NamedTuple):
    """A command, a bit without which it is refused, and a command that shows what it has done."""

    command: str
    needs: Mapping[str, str]
    shows: str
    shown: str


CASES: Final = {
    "bpftool-map": Case(
        "bpftool map create /sys/fs/bpf/map type hash key 4 value 4 entries 1 name shown",
        {"maps": "any,!hash"},
        "bpftool map show pinned /sys/fs/bpf/map",
        "name shown",
    ),
    "bpftool-prog": Case(
        "bpftool prog load {objects}/xdp_firewall.o /sys/fs/bpf/prog",
        {"progs": "any,!xdp"},
        "bpftool prog show pinned /sys/fs/bpf/prog",
        ": xdp ",
    ),
    "ip": Case(
        "ip link set v0 xdpgeneric obj {objects}/xdp_firewall.o sec xdp",
        {"cmds": "any,!prog_load"},
        "ip link show v0",
        "xdpgeneric",
    ),
    "tc": Case(
        "tc filter add dev v0 ingress bpf da obj {objects}/tc.o sec tc",
        {"progs": "any,!sched_cls"},
        "tc filter show dev v0 ingress",
        "direct-action",
    ),
    "xdp-loader": Case(
        "xdp-loader load -m skb v0 {objects}/xdp_firewall.o",
        {"progs": "any,!xdp"},
        "ip link show v0",
        "xdpgeneric",
    ),
}


@pytest.fixture(scope="module")
def objects() -> Path:
    """The objects, where a container's root can read them."""
    directory = shim.kept()
    for name in ("xdp_firewall", "tc"):
        (directory / f"{name}.o").write_bytes(compiled(name))
        (directory / f"{name}.o").chmod(0o644)
    return directory


@contextmanager
def place(lists: Mapping[str, str]) -> Iterator[Place]:
    """Namespaces with a network device, v0, and where these lists are delegated."""
    named = {f"delegate_{kind}": text for kind, text in {**ALL, **lists}.items()}
    with shim.place(named, network=True) as made:
        # xdp-loader has its lock in /run.
        prepare = (
            "mount -t tmpfs none /run && ip link add v0 type veth && tc qdisc add dev v0 clsact"
        )
        require(made.container.enter("sh", "-euc", prepare))
        yield made


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_works_with_the_shim_alone(case: Case, objects: Path) -> None:
    command = case.command.format(objects=objects).split()
    with place({}) as made:
        done = made.run(*command, shim=False)
        assert done.returncode, done
        assert REFUSED in done.stderr
        assert case.shown not in made.run(*case.shows.split(), shim=False).stdout
        done = made.run(*command, shim=True)
        assert done.returncode == 0, done
        assert case.shown in made.output(*case.shows.split(), shim=False)
    with place(case.needs) as made:
        done = made.run(*command, shim=True)
        assert done.returncode, done
        assert REFUSED in done.stderr


def test_what_traces_and_what_probes() -> None:
    """One that only fails without a token, and one that then says what isn't true."""
    with place({}) as made:
        done = made.run("runqlat", "1", "1", shim=False)
        assert REFUSED in done.stderr
        assert "distribution" in made.output("runqlat", "1", "1", shim=True)
        probe = ("bpftool", "feature", "probe", "kernel")
        said = "eBPF program_type xdp is {}available"
        assert said.format("NOT ") in made.output(*probe, shim=False)
        assert said.format("") in made.output(*probe, shim=True)

"""Bit by bit: what is delegated works through a token in a real container, and nothing else does.

What this kernel can create or load at all is found out first, by its own root and without
any token.  Then each map type, each program type and each command is delegated alone (with
what the probe's trivial object of it can't do without), and the probe tries everything.
"""

import json
import subprocess
from typing import Any

import pytest

from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Enum
from oci_bpf_hook.kernel import enums as kernel
from tests.support.podman import World

SWEEP = ["probe", "sweep", "/sys/fs/bpf"]
# The commands that ask for a token: kernel/bpf/syscall.c, since 6.9 and (the last) 6.15.
WITH_TOKEN = {"map_create", "prog_load", "btf_load", "btf_get_fd_by_id"}


def _enums() -> dict[str, Enum]:
    # At collection, where the host may lack BTF; the tests themselves are skipped there.
    return kernel.enums(KINDS)


ENUMS = _enums()


def types(kind: str) -> list[Any]:
    """The types of one enum as test parameters, called by their names; `unspec` is none."""
    return [
        pytest.param(value, id=name)
        for value, name in ENUMS[kind].names.items()
        if name != "unspec"
    ]


def probe(world: World, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([world.probe, *arguments], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def loadable(world: World) -> dict[str, set[int]]:
    """What the host's root can create and load, by "maps" and "progs"."""
    return works(probe(world, "tokenless"))


@pytest.fixture(scope="module")
def needs(world: World) -> dict[str, dict[int, dict[str, set[int]]]]:
    """What else the probe's object of a type takes: lists of values by kind."""
    deps = probe(world, "deps")
    return {
        kind: {
            int(value): {name: set(values) for name, values in rest.items()}
            for value, rest in deps[kind].items()
        }
        for kind in ("maps", "progs")
    }


def works(swept: dict[str, Any]) -> dict[str, set[int]]:
    return {
        kind: {int(value) for value, result in swept[kind].items() if result == "ok"}
        for kind in ("maps", "progs")
    }


def sweep(world: World, **delegated: set[int]) -> dict[str, Any]:
    """What a container can do with just these values delegated."""
    annotations = {
        f"io.bpffs.delegate_{kind}": ":".join(
            ENUMS[f"delegate_{kind}"].names[value] for value in sorted(values)
        )
        for kind, values in delegated.items()
        if values
    }
    done = world.run("crun", annotations=annotations, command=SWEEP)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["token"] == "ok"
    return result


@pytest.mark.parametrize("value", types(MAPS.option))
def test_map_type(
    world: World,
    loadable: dict[str, set[int]],
    needs: dict[str, dict[int, dict[str, set[int]]]],
    value: int,
) -> None:
    rest = needs["maps"].get(value, {})
    commands = {ENUMS[CMDS.option].values["map_create"]} | rest.get("cmds", set())
    maps = {value} | rest.get("maps", set())
    result = works(sweep(world, cmds=commands, maps=maps))
    assert result == {"maps": maps & loadable["maps"], "progs": set()}
    assert value in result["maps"] or value not in loadable["maps"]


@pytest.mark.parametrize("value", types(PROGS.option))
def test_program_type(
    world: World,
    loadable: dict[str, set[int]],
    needs: dict[str, dict[int, dict[str, set[int]]]],
    value: int,
) -> None:
    rest = needs["progs"].get(value, {})
    commands = {ENUMS[CMDS.option].values["prog_load"]} | rest.get("cmds", set())
    progs = {value} | rest.get("progs", set())
    swept = sweep(world, cmds=commands, progs=progs, attachs=rest.get("attachs", {0}))
    result = works(swept)
    assert result == {"maps": set(), "progs": progs & loadable["progs"]}
    assert value in result["progs"] or value not in loadable["progs"]


@pytest.mark.parametrize("value", types(ATTACHS.option))
def test_attach_type(world: World, value: int) -> None:
    """Everything but one attach type: only the programs that want that one are refused."""
    name = ENUMS[ATTACHS.option].names[value]
    annotations = {
        "io.bpffs.delegate_cmds": "prog_load,btf_load",
        "io.bpffs.delegate_progs": "any",
        "io.bpffs.delegate_attachs": f"any,!{name}",
    }
    done = world.run("crun", annotations=annotations, command=SWEEP)
    assert done.returncode == 0, done.stderr
    deps = probe(world, "deps")["progs"]
    refused = {int(prog) for prog, rest in deps.items() if value in rest.get("attachs", [])}
    everything = works(probe(world, "tokenless"))["progs"]
    assert works(json.loads(done.stdout))["progs"] == everything - refused


@pytest.mark.parametrize("name", list(ENUMS[CMDS.option].names.values()))
def test_command(world: World, name: str) -> None:
    """One command with all types: the four that ask for a token work alone, the others don't."""
    annotations = {
        "io.bpffs.delegate_cmds": name,
        "io.bpffs.delegate_maps": "any",
        "io.bpffs.delegate_progs": "any",
        "io.bpffs.delegate_attachs": "any",
    }
    done = world.run("crun", annotations=annotations, command=SWEEP)
    assert done.returncode == 0, done.stderr
    commands = json.loads(done.stdout)["cmds"]
    assert set(commands) == WITH_TOKEN
    assert {cmd for cmd, result in commands.items() if result == "ok"} == {name} & WITH_TOKEN


def test_everything(world: World, loadable: dict[str, set[int]]) -> None:
    annotations = dict.fromkeys((f"io.bpffs.{kind.option}" for kind in KINDS), "any")
    done = world.run("runc", annotations=annotations, command=SWEEP)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert works(result) == loadable
    assert set(result["cmds"].values()) == {"ok"}


def test_nothing(world: World) -> None:
    """Without the hook's mount there is no token, and nothing works without one."""
    done = world.run("crun", command=["probe", "tokenless"])
    assert done.returncode == 0, done.stderr
    assert works(json.loads(done.stdout)) == {"maps": set(), "progs": set()}

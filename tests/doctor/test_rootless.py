"""doctor, inspect and delegate about a user's own containers, with a real broker."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from oci_bpf_hook.errors import DONE
from tests.cli.commands.test_inspect import inspect
from tests.support.podman import IMAGE, World
from tests.support.policy import audited, in_force
from tests.support.rootless import installed
from tests.support.scratch import io
from tests.support.situation import SOCKET, command, findings, not_well, others
from tests.support.users import ALICE


@pytest.fixture(scope="module")
def alice() -> Iterator[World]:
    """alice's podman, with the hook where she can run it, and the broker."""
    with installed() as (world, _):
        yield world


@contextmanager
def started(world: World, name: str, annotations: dict[str, str]) -> Iterator[int]:
    """A container of hers that runs, or not; podman's exit code."""
    given = [part for item in annotations.items() for part in ("--annotation", "=".join(item))]
    done = world.podman(
        *("run", "--detach", "--name", name, "--pull", "never", "--cgroups", "disabled"),
        *("--cap-add=BPF", *given, IMAGE),
        *("sh", "-c", "trap exit TERM; sleep 1000 & wait"),
        check=False,
    )
    try:
        yield done.returncode
    finally:
        world.podman("rm", "--force", "--time", "0", name, check=False)


def test_nothing_is_wrong(alice: World) -> None:
    with started(alice, "hers", io(**SOCKET)) as code:
        assert code == DONE
        assert others(findings("--container", "hers")) == {}
        (one,) = (one for one in inspect() if one["container"]["name"] == "hers")
        assert (one["owner"], one["rule"]) == (ALICE.uid, "everything")
        assert one["delegated"] == SOCKET
        # She sees it herself.
        assert "hers" in [one["container"]["name"] for one in inspect(user=ALICE.uid)]


def test_the_broker_refuses_by_policy(alice: World) -> None:
    with in_force(None), started(alice, "too-much", io(delegate_cmds="any")) as code:
        assert code != DONE
        assert "peer" in audited()[-1]
        found = not_well(findings("--container", "too-much"))
    assert set(found) == {"refused"}
    assert 'io.bpffs.delegate_cmds "any"' in found["refused"]["why"]
    assert f"asked for by {ALICE.name}" in found["refused"]["why"]


def test_delegate(alice: World) -> None:
    lists = ("--cmds=map_create", "--maps=hash")
    with started(alice, "plain", {}) as code:
        assert code == DONE
        assert set(not_well(findings("--container", "plain"))) == {"no-bpffs"}
        done = command("delegate", "--container", "plain", *lists)
        assert done.returncode == DONE, done.stderr
        assert f"this container is {ALICE.name}'s own" in done.stdout
        assert not_well(findings("--container", "plain")) == {}
    line = audited()[-1]
    assert (line["requester"]["user"], line["requester"]["rootless"]) == (ALICE.uid, True)
    # What she called it is hers to choose, and gives nothing.
    assert line["requester"]["container"] is None

"""podman with the hook at precreate as well, and what a container has got there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.engines import CompletedProcess, Runtime
from tests.support.podman import World
from tests.support.scratch import LAUNCHER, io
from tests.support.users import User

HOOK = LAUNCHER.with_suffix(".json")
PRECREATE = LAUNCHER.parents[1] / "contrib" / "podman" / "oci-bpf-hook-precreate.json"
XDP = io(profile="xdp")
CAPS = "grep -E 'Cap(Eff|Bnd)' /proc/self/status"
MAP, PROG = "probe map /sys/fs/bpf 1", "probe prog /sys/fs/bpf 6 37"
# What podman gives anyway, and that with CAP_BPF (39), and with CAP_NET_ADMIN (12) as well.
PLAIN, WITH_BPF, WITH_BOTH = "00000000a80425fb", "00000080a80425fb", "00000080a80435fb"


@contextmanager
def podman(launcher: Path, user: User | None = None) -> Iterator[World]:
    """podman with its own seccomp profile, and the hook at both of its stages."""
    with World(user) as world:
        conf = world.directory / "containers.conf"
        kept = [line for line in conf.read_text().splitlines() if "seccomp_profile" not in line]
        conf.write_text("\n".join(kept) + "\n")
        for source in (HOOK, PRECREATE):
            world.install_hook(launcher, source)
        yield world


def run(
    world: World,
    runtime: Runtime,
    *options: str,
    annotations: dict[str, str] = XDP,
    script: str = f"{CAPS}; {MAP}; {PROG}",
    userns: bool = True,
) -> CompletedProcess:
    command = ["sh", "-c", script]
    return world.run(
        runtime,
        *options,
        annotations=annotations,
        command=command,
        userns=userns,
        capabilities=(),
    )


def results(done: CompletedProcess) -> list[str]:
    """What came of each probe."""
    assert done.returncode == 0, done.stderr
    return results_of(done.stdout)


def results_of(text: str) -> list[str]:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line["result"] or line["token"] for line in lines]


def capabilities(text: str) -> set[str]:
    return {line.split()[1] for line in text.splitlines() if line.startswith("Cap")}


def refused(done: CompletedProcess, code: int) -> None:
    """podman says which exit code there was, and has started nothing."""
    assert done.returncode != 0
    assert f"executing [oci-bpf-hook precreate]: exit status {code}" in done.stderr
    assert done.stdout == ""


BUILD = ("build", "--isolation", "oci", "--network", "none", "--pull-never", "--no-cache")
IDS = ("--userns-uid-map", "0:100000:65536", "--userns-gid-map", "0:100000:65536")


def build(world: World, image: str, *options: str, tag: str) -> CompletedProcess:
    """A build on `image`, with one step that looks around."""
    context = world.directory / f"build-{tag}"
    context.mkdir(exist_ok=True)
    (context / "Containerfile").write_text(f"FROM {image}\nRUN {CAPS}; cat /proc/mounts\n")
    # buildah has its bundle there, and the step's root has to walk through it.
    (world.directory / "tmp").chmod(0o711)
    # runc, since crun lifts RLIMIT_MEMLOCK for the cgroup's devices.
    return world.podman(
        *(*BUILD, "--cgroup-parent", f"/{world.cgroup_parent}/{tag}"),
        *(*options, "--tag", f"localhost/{tag}", str(context)),
        runtime="runc",
        check=False,
    )

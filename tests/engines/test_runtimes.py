"""crun and runc with a bundle and no engine above them."""

import json
from pathlib import Path

import pytest

from oci_bpf_hook import errors
from tests.support.bundle import Bundle
from tests.support.engines import RUNTIMES, Runtime, build_probe
from tests.support.scratch import LAUNCHER

ANNOTATIONS = {"io.bpffs.delegate_cmds": "map_create", "io.bpffs.delegate_maps": "hash,array"}
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
COMMAND = ["sh", "-c", "cat /proc/mounts; probe map /sys/fs/bpf 2"]

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe") / "probe")


@pytest.mark.parametrize("readonly_root", [False, True], ids=["rw", "ro"])
@pytest.mark.parametrize("host_network", [False, True], ids=["own-net", "host-net"])
def test_bundle(probe: Path, runtime: Runtime, *, readonly_root: bool, host_network: bool) -> None:
    with Bundle(
        probe=probe,
        command=COMMAND,
        annotations=ANNOTATIONS,
        readonly_root=readonly_root,
        host_network=host_network,
    ) as bundle:
        bundle.add_hook(LAUNCHER, env=ENV)
        done = bundle.run(runtime)
    assert done.returncode == 0, done.stderr
    assert "delegate_cmds=map_create,delegate_maps=hash:array" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["result"] == "ok"


def test_registered_twice_it_mounts_once(probe: Path, runtime: Runtime) -> None:
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER, stage="prestart", env=ENV)
        bundle.add_hook(LAUNCHER, env=ENV)
        done = bundle.run(runtime)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("delegate_cmds") == 1


def test_the_runtime_s_own_environment_does_no_harm(probe: Path, runtime: Runtime) -> None:
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER)
        done = bundle.run(runtime)
    assert done.returncode == 0, done.stderr


def test_the_header_is_read_where_it_is_named(probe: Path, runtime: Runtime) -> None:
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER, env=ENV, args=["--header", "/usr/include/linux/bpf.h"])
        assert bundle.run(runtime).returncode == 0


def test_wrong_arguments(probe: Path, runtime: Runtime) -> None:
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER, env=ENV, args=["--headers"])
        done = bundle.run(runtime)
        assert done.returncode != 0
        expected = "(exit code: 2)" if runtime == "crun" else f"(exit code {errors.USAGE})"
        assert expected in done.stderr
        # A container that doesn't ask is none of our business.
        bundle.config["annotations"] = {}
        assert bundle.run(runtime).returncode == 0


def test_a_read_only_tmpfs_at_the_target(probe: Path, runtime: Runtime) -> None:
    """runc remounts what is there by then; above it nothing changes, and it is still ours."""
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER, env=ENV)
        mounts = list(bundle.config["mounts"])
        tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
        bundle.config["mounts"] = [*mounts, {**tmpfs, "destination": "/sys/fs/bpf"}]
        refused = bundle.run(runtime)
        bundle.config["mounts"] = [*mounts, {**tmpfs, "destination": "/sys/fs"}]
        done = bundle.run(runtime)
    assert f"exit code{':' if runtime == 'crun' else ''} {errors.MOUNT_FAILED}" in refused.stderr
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("bpf "))
    assert line.split()[3].startswith("rw,nosuid,nodev,noexec,")


def test_a_masked_target_is_refused(probe: Path, runtime: Runtime) -> None:
    with Bundle(probe=probe, command=COMMAND, annotations=ANNOTATIONS) as bundle:
        bundle.add_hook(LAUNCHER, env=ENV)
        bundle.config["linux"]["maskedPaths"].append("/sys/fs")
        done = bundle.run(runtime)
    assert done.returncode != 0
    assert f"exit code{':' if runtime == 'crun' else ''} {errors.MOUNT_FAILED}" in done.stderr

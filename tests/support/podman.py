"""podman with a world of its own: storage, configuration, hooks and image below one directory."""

import csv
import functools
import io
import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from oci_bpf_hook.oci.seccomp import BASES, allow_bpf

from .engines import (
    CAPABILITIES,
    FIRST_ID,
    ID_COUNT,
    Closing,
    CompletedProcess,
    Runtime,
    build_probe,
    has_sys_resource,
    make_rootfs,
    make_work_directory,
    pauses_of,
    processes_of,
    remove_cgroup,
    remove_work_directory,
    require,
    run,
    wait_for_end,
)
from .users import User

# On a busy machine podman 4.3.1 now and then loses all that a container prints just before it
# ends, and says nothing.  So a container that isn't silent is run again.
_ATTACHED: Final = 4
IMAGE: Final = "localhost/oci-bpf-hook-test:latest"


class World(Closing):
    """podman with storage, configuration and hooks of its own, and the test image in it.

    A context manager; enter_private_mounts() comes first. `directory` may be used for scratch
    files: it goes away with the world. With a `user` it is that user's rootless podman.
    """

    def __init__(self, user: User | None = None) -> None:
        self.user = user
        self.directory = make_work_directory()
        self.hooks_dir = self.directory / "hooks.d"
        self.cgroup_parent = self.directory.name
        try:
            self.hooks_dir.mkdir()
            self.probe = build_probe(self.directory / "probe")
            self.rootfs = make_rootfs(self.directory / "rootfs", self.probe)
            self.seccomp = self.directory / "seccomp.json"
            self.seccomp.write_text(json.dumps(seccomp_profile()), encoding="utf-8")
            self.environment = self._configure()
            self.storage_driver = self._make_image()
        except BaseException:
            self.close()
            raise

    def _configure(self) -> dict[str, str]:
        work = self.directory
        (work / "containers.conf").write_text(
            "[containers]\n"
            # podman's default limits are above what a root without CAP_SYS_RESOURCE can set.
            'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
            # Where the pids controller is a v1 one, the cgroup2 mount has none to set a limit with.
            "pids_limit = 0\n"
            'log_driver = "k8s-file"\n'
            'netns = "none"\n'
            f'seccomp_profile = "{self.seccomp}"\n'
            "[engine]\n"
            'cgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\n'
            # The default, shared memory, is one pool in /dev/shm for every podman of the host.
            'lock_type = "file"\n'
            f'hooks_dir = ["{self.hooks_dir}"]\n'
            f'tmp_dir = "{work}/libpod"\n'
            # No static_dir: conmon's `podman container cleanup` gets --root, with which podman 4.3
            # looks for its database there. It would find none, and `podman run` wait 20 s for it.
            f'volume_path = "{work}/volumes"\n'
            "[network]\n"
            f'network_config_dir = "{work}/networks"\n',
            encoding="utf-8",
        )
        for name in ("home", "tmp", "run"):
            (work / name).mkdir(mode=0o700)
        environment = {
            "CONTAINERS_CONF": f"{work}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{work}/storage.conf",
            "HOME": f"{work}/home",
            "TMPDIR": f"{work}/tmp",
        }
        if self.user:
            for path in (work, *(work / name for name in ("home", "tmp", "run"))):
                os.chown(path, self.user.uid, self.user.uid)
            environment["XDG_RUNTIME_DIR"] = f"{work}/run"
        return environment

    def _make_image(self) -> str:
        archive = self.directory / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(self.rootfs, arcname=".", filter=as_root)
        failures = ""
        for driver in ("overlay", "vfs"):  # overlay doesn't work on top of overlay, as in CI
            (self.directory / "storage.conf").write_text(
                f'[storage]\ndriver = "{driver}"\ngraphroot = "{self.directory}/{driver}"\n'
                f'runroot = "{self.directory}/{driver}-run"\n',
                encoding="utf-8",
            )
            done = self.podman("import", "--quiet", str(archive), IMAGE, check=False)
            if done.returncode == 0:
                return driver
            failures += f"{driver}: {done.stderr}"
        raise RuntimeError(f"podman can't make an image here:\n{failures}")

    def podman(
        self,
        *args: str,
        runtime: Runtime = "crun",
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> CompletedProcess:
        """Run podman with the arguments in this world; RuntimeError if it fails and `check`."""
        argv = ["podman", "--runtime", runtime, *args]
        if self.user:
            argv = self.user.running(argv)
        environment = {**self.environment, **(env or {})}
        done = run(argv, env=environment, timeout=timeout)
        return require(done) if check else done

    @contextmanager
    def service(self, url: str) -> Iterator[None]:
        """podman's API at the unix:// URL, for as long as this is open."""
        path = Path(url.removeprefix("unix://"))
        with subprocess.Popen(
            ["podman", "system", "service", "--time", "0", url],
            env={"PATH": os.environ["PATH"], **self.environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                # It says nothing when it is ready; that it answers is what says so.
                while not _answers(path):
                    assert process.poll() is None, process.stderr
                    time.sleep(0.01)
                yield
            finally:
                process.terminate()
                process.communicate()

    def run(
        self,
        runtime: Runtime,
        *podman_run_args: str,
        command: Sequence[str],
        annotations: Mapping[str, str] | None = None,
        userns: bool = True,
        capabilities: Sequence[str] = CAPABILITIES,
        timeout: float = 60,
    ) -> CompletedProcess:
        """Run the command in a new container and return its result, whatever its exit status."""
        args = ["run", "--rm", "--pull", "never"]
        if userns and not self.user:
            mapping = f"0:{FIRST_ID}:{ID_COUNT}"
            args += ["--uidmap", mapping, "--gidmap", mapping]
        if self.user:
            # A user has no cgroup to make a container's in; podman lets only crun do without.
            args += ["--cgroups", "disabled"] if runtime == "crun" else []
        elif runtime == "crun" and not userns and not has_sys_resource():
            # For the cgroup's device program crun lifts RLIMIT_MEMLOCK, unless in a user namespace.
            args += ["--cgroups", "disabled"]
        else:
            args += ["--cgroup-parent", f"/{self.cgroup_parent}"]
        args += [f"--cap-add={capability}" for capability in capabilities]
        for key, value in (annotations or {}).items():
            args += ["--annotation", self._annotation(f"{key}={value}")]
        args += [*podman_run_args, IMAGE, *command]
        if command[0] == "true":
            return self.podman(*args, runtime=runtime, check=False, timeout=timeout)
        return self.attached(*args, runtime=runtime, timeout=timeout)

    def attached(
        self, *args: str, runtime: Runtime = "crun", timeout: float = 60
    ) -> CompletedProcess:
        """Run podman for a container that prints something, whatever its exit status."""
        for _ in range(_ATTACHED):
            done = self.podman(*args, runtime=runtime, check=False, timeout=timeout)
            if done.returncode or done.stdout:
                break
        return done

    @functools.cached_property
    def _splits_annotations(self) -> bool:
        # podman 4 reads --annotation as a CSV record ("strings"), podman 6 as it is.
        text = self.podman("run", "--help").stdout
        (line,) = (line for line in text.splitlines() if "--annotation " in line)
        return line.split()[1] == "strings"

    def _annotation(self, item: str) -> str:
        if not self._splits_annotations:
            return item
        record = io.StringIO()
        csv.writer(record, lineterminator="").writerow([item])
        return record.getvalue()

    def install_hook(
        self,
        launcher: Path,
        source_json: Path,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stages: Sequence[str] | None = None,
    ) -> Path:
        """Write the shipped JSON into the world's hooks directory with the path of this launcher.

        `args` are put after the JSON's own, `env` is set over its own, `stages` replace its own.
        Returns the path of the file, which has the name of the shipped one.
        """
        config: dict[str, Any] = json.loads(source_json.read_text(encoding="utf-8"))
        hook: dict[str, Any] = config["hook"]
        hook["path"] = str(launcher)
        if args:
            hook["args"] = [*hook.get("args", [str(launcher)]), *args]
        if env:
            names = {entry.partition("=")[0]: entry for entry in hook.get("env", [])}
            names |= {name: f"{name}={value}" for name, value in env.items()}
            hook["env"] = list(names.values())
        if stages is not None:
            config["stages"] = list(stages)
        installed = self.hooks_dir / source_json.name
        installed.write_text(json.dumps(config), encoding="utf-8")
        return installed

    def remove_hooks(self) -> None:
        """Empty the world's hooks directory."""
        for entry in self.hooks_dir.iterdir():
            entry.unlink()

    def close(self) -> None:
        """Remove every container, process, mount, cgroup and file of this world."""
        if not self.directory.exists():
            return
        if (self.directory / "storage.conf").exists():
            self.podman("rm", "--all", "--force", "--time", "0", check=False)
        for pid in processes_of(self.directory):
            wait_for_end(pid, 10)
        for pid in pauses_of(self.directory):
            wait_for_end(pid, 0)
        remove_cgroup(self.cgroup_parent)
        remove_work_directory(self.directory)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def seccomp_profile() -> dict[str, Any]:
    """The engine's own seccomp profile, by the command that changes it for CAP_BPF."""
    source = next(path for path in map(Path, BASES) if path.exists())
    return allow_bpf(json.loads(source.read_text(encoding="utf-8")))


def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


@contextmanager
def started(world: World, name: str, runtime: Runtime = "crun", *options: str) -> Iterator[str]:
    """A container of podman's that runs; its id."""
    mapping = "0:100000:65536"
    done = world.podman(
        *("run", "--detach", "--name", name, "--pull", "never"),
        *("--uidmap", mapping, "--gidmap", mapping, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *options,
        *(IMAGE, "sh", "-c", "trap exit TERM; sleep 1000 & wait"),
        runtime=runtime,
    )
    try:
        yield done.stdout.strip()
    finally:
        world.podman("rm", "--force", "--time", "0", name, check=False)

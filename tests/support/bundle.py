"""A runtime alone: an OCI bundle for crun or runc without an engine above it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .engines import (
    CAPABILITIES,
    FIRST_ID,
    ID_COUNT,
    Closing,
    CompletedProcess,
    Runtime,
    make_rootfs,
    make_work_directory,
    remove_cgroup,
    remove_work_directory,
    run,
)

# What podman gives anyway, for bundles to have the same.
ENGINE_CAPABILITIES: Final = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    *("CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
    "CAP_SYS_CHROOT",
)


class Bundle(Closing):
    """An OCI bundle for a runtime without an engine above it; a context manager.

    `config` is config.json as a dict: change it at will before run(), which writes it.
    """

    def __init__(
        self,
        *,
        probe: Path,
        command: Sequence[str],
        annotations: Mapping[str, str] | None = None,
        userns: bool = True,
        readonly_root: bool = False,
        host_network: bool = False,
        capabilities: Sequence[str] = CAPABILITIES,
    ) -> None:
        self.directory = make_work_directory()
        try:
            self.rootfs = make_rootfs(self.directory / "rootfs", probe)
            if userns:
                self._give_away()
            self.config = _oci_config(command)
            self.config["annotations"] = dict(annotations or {})
            self.config["root"]["readonly"] = readonly_root
            caps = [f"CAP_{name}" for name in capabilities]
            self.config["process"]["capabilities"] = {
                kind: [*ENGINE_CAPABILITIES, *caps]
                for kind in ("bounding", "effective", "permitted")
            }
            self.config["linux"]["cgroupsPath"] = f"/{self.directory.name}/container"
            if userns:
                self._add_userns()
            if host_network:
                self._use_host_network()
        except BaseException:
            self.close()
            raise

    def _give_away(self) -> None:
        for directory, _, files in os.walk(self.rootfs):
            for name in (".", *files):
                os.lchown(Path(directory, name), FIRST_ID, FIRST_ID)

    def _add_userns(self) -> None:
        linux = self.config["linux"]
        mapping = {"containerID": 0, "hostID": FIRST_ID, "size": ID_COUNT}
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [mapping]
        linux["gidMappings"] = [mapping]

    def _use_host_network(self) -> None:
        # A new sysfs needs a network namespace of the user namespace. Engines bind the host's.
        linux = self.config["linux"]
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
        (sysfs,) = (entry for entry in self.config["mounts"] if entry["destination"] == "/sys")
        sysfs |= {
            "type": "bind",
            "source": "/sys",
            "options": ["rprivate", "nosuid", "ro", "rbind"],
        }

    def add_hook(
        self,
        launcher: Path,
        *,
        stage: str = "createRuntime",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: int | None = 10,
    ) -> None:
        """Add a hook; with `env` None its environment is the runtime's choice."""
        hook: dict[str, Any] = {"path": str(launcher), "args": [launcher.name, *args]}
        if env is not None:
            hook["env"] = [f"{name}={value}" for name, value in env.items()]
        if timeout is not None:
            hook["timeout"] = timeout
        self.config.setdefault("hooks", {}).setdefault(stage, []).append(hook)

    def run(self, runtime: Runtime, *, timeout: float = 60) -> CompletedProcess:
        """Run the container to its end and return its result, whatever its exit status."""
        config = json.dumps(self.config, indent=1)
        (self.directory / "config.json").write_text(config, encoding="utf-8")
        name = self.directory.name
        state = [runtime, "--root", str(self.directory / f"{runtime}-state")]
        try:
            return run([*state, "run", "--bundle", str(self.directory), name], timeout=timeout)
        finally:
            # Already gone unless the run timed out or the runtime died.
            run([*state, "delete", "--force", name])

    def close(self) -> None:
        """Remove what the bundle left."""
        if self.directory.exists():
            remove_cgroup(self.directory.name)
            remove_work_directory(self.directory)


def _oci_config(command: Sequence[str]) -> dict[str, Any]:
    # By hand rather than from `crun spec`: the same for both runtimes and whatever their version.
    noexec = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/bin", "TERM=dumb"],
            "cwd": "/",
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs"},
        "hostname": "bundle",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": noexec},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*noexec, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")],
            # As engines have them, less what a test would have to know the runtime's version for.
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }

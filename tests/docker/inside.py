"""What is tried with real Docker and containerd: run by __main__, in Debian 13's own Python."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "unix:///run/docker.sock"
CONTAINERD = "/run/containerd/containerd.sock"
CONFIG = "contrib/docker/daemon.json"
PARTS = "contrib/containerd/bpf-version-2.toml"
DEVICE = ("--cap-add=NET_ADMIN", "--cap-add=BPF", "--device=bpffs.io/profile=xdp")
PROBES = "probe map /sys/fs/bpf 1; probe prog /sys/fs/bpf 6 37; probe prog /sys/fs/bpf 3 0"
DENY = "version: 1\nprofiles: {xdp: {delegate_cmds: [map_create]}}\nrules:\n"
DENY += "- {name: none, match: {cdi: '*'}, deny: ask the platform team}\n"
ALONE = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
SECONDS = 60


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_HOST": SOCKET},
    )


def done(*command: str) -> str:
    """What a command prints that has to succeed."""
    result = call(*command)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: {result.stdout}{result.stderr}")
    return result.stdout


def container(*words: str) -> subprocess.CompletedProcess[str]:
    return call("docker", "run", "--rm", "--network=none", *words)


def expect(what: str, result: object, wanted: object) -> None:
    """Say how it went; SystemExit if not as `wanted`."""
    if result != wanted:
        raise SystemExit(f"FAILED  {what}: {result!r}, not {wanted!r}")
    sys.stdout.write(f"ok  {what}\n")


def refusal(what: str, result: subprocess.CompletedProcess[str], words: str) -> None:
    expect(what, (result.returncode != 0, words in result.stderr), (True, True))


@contextmanager
def daemons() -> Iterator[None]:
    """containerd, and Docker with contrib's daemon.json; nothing else of the host's."""
    docker = ["dockerd", "--config-file", CONFIG, "--host", SOCKET, "--containerd", CONTAINERD]
    docker += [*ALONE, "--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs"]
    with open("/tmp/log", "w") as log:
        running = [
            subprocess.Popen(command, stdout=log, stderr=log)
            for command in (["containerd", "--address", CONTAINERD], docker)
        ]
        try:
            while call("docker", "info").returncode:
                if any(process.poll() is not None for process in running):
                    raise SystemExit(Path("/tmp/log").read_text())
            yield
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait()


def configuration() -> None:
    """What the engines themselves say of contrib's files."""
    validated = call("dockerd", "--validate", f"--config-file={CONFIG}")
    expect(f"dockerd takes {CONFIG}", validated.returncode, 0)
    ours = tomllib.loads(Path(PARTS).read_text())["plugins"]
    dumped = tomllib.loads(done("containerd", "--config", PARTS, "config", "dump"))["plugins"]
    expect(f"containerd has what {PARTS} has", lacking(ours, dumped), [])


def lacking(ours: object, theirs: object, name: str = "") -> list[str]:
    """The options of `ours` that `theirs` hasn't, or has otherwise."""
    if not isinstance(ours, dict):
        return [] if ours == theirs else [name]
    found = []
    for key, value in ours.items():
        known = theirs.get(key) if isinstance(theirs, dict) else None
        found += lacking(value, known, f"{name}.{key}")
    return found


def devices() -> None:
    """A container with a device, and who doesn't get what it gives."""
    script = f"cat /proc/mounts; {PROBES}"
    given = container(*DEVICE, "img", "sh", "-c", script).stdout
    results = [json.loads(line)["result"] for line in given.splitlines() if '"result"' in line]
    expect("a device gives its profile", ",delegate_progs=socket_filter:xdp," in given, True)
    expect("and no more, with Docker's own seccomp profile", results, ["ok", "ok", "EPERM"])
    widened = container(
        "--annotation=io.bpffs.delegate_cmds=any", *DEVICE, "img", "cat", "/proc/mounts"
    )
    expect(
        "annotations add nothing",
        ",delegate_cmds=map_create:prog_load:btf_load," in widened.stdout,
        True,
    )
    outside = container("--userns=host", *DEVICE, "img", "true")
    refusal("no user namespace, no container", outside, "(exit code 14)")
    policy = Path("/etc/oci-bpf-hook/policy.yaml")
    policy.write_text(DENY)
    refusal("the policy decides", container(*DEVICE, "img", "true"), "ask the platform team")
    policy.unlink()


def main() -> None:
    """Try it all."""
    os.umask(0o022)
    done("/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "install")
    done("oci-bpf-hook", "cdi", "generate", "--engine", "docker")
    for line in (done("dockerd", "--version"), done("containerd", "--version")):
        sys.stdout.write(line)
    configuration()
    with daemons():
        done("docker", "import", "/tmp/image.tar", "img")
        devices()
        done("oci-bpf-hook", "uninstall")
        expect("without the hook containers start", container("img", "true").returncode, 0)
        refusal("and there is no device", container(*DEVICE, "img", "true"), "unresolvable CDI")


if __name__ == "__main__":
    main()

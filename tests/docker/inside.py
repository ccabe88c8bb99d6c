"""What is tried with real Docker and containerd: run by __main__, in Debian 13's own Python."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.docker.cri import Runtime

SOCKET = "unix:///run/docker.sock"
CONTAINERD = "/run/containerd/containerd.sock"
CONFIG = "contrib/docker/daemon.json"
PARTS = "contrib/containerd/bpf-version-2.toml"
POLICY = Path("/etc/oci-bpf-hook/policy.yaml")
XDP = "bpffs.io/profile=xdp"
DEVICE = ("--cap-add=NET_ADMIN", "--cap-add=BPF", f"--device={XDP}")
SCRIPT = "cat /proc/mounts; probe map /sys/fs/bpf 1; probe prog /sys/fs/bpf 6 37; "
SCRIPT += "probe prog /sys/fs/bpf 3 0"
# The last is a program type that the profile hasn't.
RESULTS = ["ok", "ok", "EPERM"]
PROFILE = "version: 1\nprofiles: {xdp: {delegate_cmds: [map_create]}}\nrules:\n"
DENY = f"{PROFILE}- {{name: none, match: {{cdi: '*'}}, deny: ask the platform team}}\n"
RULE = f"""{PROFILE}- name: theirs
  match: {{namespace: monitoring, pod: web, container: probe, image: "*/img:*",
          annotations: {{bpffs.io/service-account: bpf-agent}}}}
  allow: {{profiles: [xdp]}}
"""
# What the pod's author says of the namespace is none of what contrib's file hands on.
ASK = {
    "io.bpffs.profile": "xdp",
    "bpffs.io/service-account": "bpf-agent",
    "io.kubernetes.cri.sandbox-namespace": "spoofed",
}
ALONE = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
# A cgroup2 hierarchy beside v1 ones has no controllers, and runc sets no limits without.
RUNTIME = """#!/usr/bin/python3
import json, os, sys
words = sys.argv[1:]
if "create" in words:
    path = words[words.index("--bundle") + 1] + "/config.json"
    config = json.load(open(path))
    for name in ("cpu", "memory", "unified"):
        config["linux"].get("resources", {}).pop(name, None)
    json.dump(config, open(path, "w"))
os.execvp("runc", ["runc", *words])
"""
NETWORK = {
    "cniVersion": "0.4.0",
    "name": "here",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.88.0.0/16"}}],
}
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


def granted(what: str, printed: str) -> None:
    """The container that ran SCRIPT and has `printed` this has just the profile."""
    texts = (line[line.index("{") :] for line in printed.splitlines() if '"result"' in line)
    results = [json.loads(text)["result"] for text in texts]
    mounted = ",delegate_progs=socket_filter:xdp," in printed
    expect(what, (mounted, results), (True, RESULTS))


@contextmanager
def policy(text: str) -> Iterator[None]:
    """Another policy than the built-in one."""
    POLICY.write_text(text)
    yield
    POLICY.unlink()


@contextmanager
def daemons(config: str) -> Iterator[None]:
    """containerd with this configuration, and Docker with contrib's."""
    docker = ["dockerd", "--config-file", CONFIG, "--host", SOCKET, "--containerd", CONTAINERD]
    docker += [*ALONE, "--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs"]
    with open("/tmp/log", "w") as log:
        running = [
            subprocess.Popen(command, stdout=log, stderr=log)
            for command in (["containerd", "--config", config], docker)
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


def configuration() -> str:
    """What the engines themselves say of contrib's files; containerd's, for here."""
    validated = call("dockerd", "--validate", f"--config-file={CONFIG}")
    expect(f"dockerd takes {CONFIG}", validated.returncode, 0)
    loaded = tomllib.loads(Path(PARTS).read_text())
    dumped = tomllib.loads(done("containerd", "--config", PARTS, "config", "dump"))
    expect(f"containerd has what {PARTS} has", lacking(loaded, dumped), [])
    cri = loaded["plugins"]["io.containerd.grpc.v1.cri"]
    cri |= {"sandbox_image": "docker.io/library/img:latest", "restrict_oom_score_adj": True}
    cri["cni"] = {"bin_dir": "/usr/lib/cni", "conf_dir": "/tmp/cni"}
    runtimes = cri["containerd"]["runtimes"]
    runtimes["runc"] = {"runtime_type": "io.containerd.runc.v2"}
    # Debian has no hook-injector; a runtime's own specification may have the hook as well.
    runtimes["bpf"]["base_runtime_spec"] = "/tmp/base.json"
    runtimes["bpf"]["options"] = {"BinaryName": "/tmp/runtime", "SystemdCgroup": False}
    Path("/tmp/config.toml").write_text("".join(toml(loaded)))
    spec = json.loads(done("ctr", "oci", "spec"))
    installed = Path("/usr/share/containers/oci/hooks.d/oci-bpf-hook.json").read_text()
    spec["hooks"] = {"createRuntime": [json.loads(installed)["hook"]]}
    Path("/tmp/base.json").write_text(json.dumps(spec))
    Path("/tmp/runtime").write_text(RUNTIME)
    Path("/tmp/runtime").chmod(0o755)
    Path("/tmp/cni").mkdir()
    Path("/tmp/cni/here.conflist").write_text(json.dumps(NETWORK))
    return "/tmp/config.toml"


def lacking(ours: object, theirs: object, name: str = "") -> list[str]:
    """The options of `ours` that `theirs` hasn't, or has otherwise."""
    if not isinstance(ours, dict):
        return [] if ours == theirs else [name]
    found = []
    for key, value in ours.items():
        known = theirs.get(key) if isinstance(theirs, dict) else None
        found += lacking(value, known, f"{name}.{key}")
    return found


def toml(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The table as TOML, of which JSON's texts, numbers and lists of these are a part."""
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{json.dumps(key)} = {json.dumps(value)}\n"
    for key, value in table.items():
        if isinstance(value, dict):
            yield f"[{name}{json.dumps(key)}]\n"
            yield from toml(value, f"{name}{json.dumps(key)}.")


def docker() -> None:
    """A container with a device, and who doesn't get what it gives."""
    done("oci-bpf-hook", "cdi", "generate", "--engine", "docker")
    given = container(*DEVICE, "img", "sh", "-c", SCRIPT)
    granted("Docker: a device gives its profile, with its own seccomp filter", given.stdout)
    everything = "--annotation=io.bpffs.delegate_progs=any"
    given = container(everything, *DEVICE, "img", "sh", "-c", SCRIPT)
    granted("Docker: annotations add nothing", given.stdout)
    outside = container("--userns=host", *DEVICE, "img", "true")
    refusal("Docker: no user namespace, no container", outside, "(exit code 14)")
    with policy(DENY):
        refused = container(*DEVICE, "img", "true")
        refusal("Docker: the policy decides", refused, "ask the platform team")


def containerd() -> None:
    """Pods with user namespaces, by CRI."""
    done("oci-bpf-hook", "cdi", "generate", "--engine", "containerd")
    runtime = Runtime(CONTAINERD)
    granted("containerd: annotations ask", runtime.run("asks", ASK, SCRIPT)[1])
    granted("containerd: a device gives its profile", runtime.run("has", {}, SCRIPT, XDP)[1])
    started, printed = runtime.run("plain", {}, "cat /proc/mounts")
    expect("containerd: who doesn't ask has none", (started, "bpf" in printed), (True, False))
    with policy(RULE):
        started, printed = runtime.run("web", ASK, "cat /proc/mounts")
        wanted = "delegate_cmds=map_create "
        expect(
            "containerd: a rule about a pod and its service account",
            (started, wanted in printed),
            (True, True),
        )
        others = {
            "pod": ("other", ASK),
            "service account": ("web", ASK | {"bpffs.io/service-account": "default"}),
        }
        for what, (pod, annotations) in others.items():
            started, printed = runtime.run(pod, annotations, "true")
            refused = "no rule of the policy is for this container" in printed
            expect(f"containerd: not about another {what}", (started, refused), (False, True))


def main() -> None:
    """Try it all."""
    os.umask(0o022)
    done("/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "install", "--engine", "containerd")
    for line in (done("dockerd", "--version"), done("containerd", "--version")):
        sys.stdout.write(line)
    with daemons(configuration()):
        change = ("--change", 'ENTRYPOINT ["/bin/sleep", "600"]')
        done("docker", "import", *change, "/tmp/image.tar", "img")
        done("docker", "save", "--output", "/tmp/saved.tar", "img")
        done("ctr", "--namespace", "k8s.io", "images", "import", "/tmp/saved.tar")
        done("docker", "import", "/tmp/image.tar", "img")
        containerd()
        docker()
        done("oci-bpf-hook", "uninstall")
        expect("without the hook containers start", container("img", "true").returncode, 0)
        refusal("and there is no device", container(*DEVICE, "img", "true"), "unresolvable CDI")


if __name__ == "__main__":
    main()

"""What is tried with a real containerd: run by __main__, in Debian's own Python."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.docker.cri import LOGS, Runtime
from tests.docker.inside import (
    CONTAINERD,
    NETWORK,
    RUNTIME,
    call,
    done,
    expect,
    policy,
    toml,
)

NRI = "/var/run/nri/nri.sock"
# Where a recorder of a session listens.
RECORDED = "/tmp/recorded.sock"
IMAGE = "docker.io/library/img:latest"
PLUGIN = ("/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "nri")
ASK = {"io.bpffs.delegate_cmds": "map_create", "io.bpffs.delegate_maps": "hash"}
SCRIPT = "cat /proc/mounts; stat -c 'root %u:%g %a' {0}; probe map {0} 1; probe map {0} 2; id -u"
RULE = """version: 1
rules:
- name: theirs
  match: {namespace: monitoring, pod: "web*", container: probe, image: "*/img:*"}
  allow: {delegate_cmds: [map_create], delegate_maps: [hash]}
"""
SECONDS = 60


def archive() -> Path:
    """The image as `docker save` writes one, from its root file system."""
    layer = Path("/tmp/image.tar").read_bytes()
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/bin/sleep", "600"], "Labels": {"io.bpffs.profile": "xdp"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    path = Path("/tmp/saved.tar")
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("config.json", config),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def configuration(binary: str) -> str:
    """containerd's configuration, with NRI on, and a runtime that runs `binary`."""
    cri: dict[str, Any] = {
        "sandbox_image": IMAGE,
        "restrict_oom_score_adj": True,
        "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": "/tmp/cni"},
    }
    options = {"BinaryName": "/tmp/runtime", "SystemdCgroup": False}
    cri["containerd"] = {
        "runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2", "options": options}}
    }
    nri = {"disable": False, "plugin_path": "/tmp/plugins", "plugin_config_path": "/tmp/conf.d"}
    plugins = {"io.containerd.grpc.v1.cri": cri, "io.containerd.nri.v1.nri": nri}
    Path("/tmp/config.toml").write_text("".join(toml({"version": 2, "plugins": plugins})))
    tomllib.loads(Path("/tmp/config.toml").read_text())
    Path("/tmp/runtime").write_text(RUNTIME.replace('"runc"', f'"{binary}"'))
    Path("/tmp/runtime").chmod(0o755)
    Path("/tmp/cni").mkdir(exist_ok=True)
    Path("/tmp/cni/here.conflist").write_text(json.dumps(NETWORK))
    return "/tmp/config.toml"


@contextmanager
def engine(config: str) -> Iterator[Runtime]:
    done("ip", "link", "set", "lo", "up")
    shutil.rmtree(LOGS, ignore_errors=True)
    with open("/tmp/log", "a") as log:
        running = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
        try:
            while call("ctr", "version").returncode or not os.path.exists(NRI):
                if running.poll() is not None:
                    raise SystemExit(Path("/tmp/log").read_text())
            yield Runtime(CONTAINERD, "")
        finally:
            running.terminate()
            running.wait()


@contextmanager
def plugin(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The plugin, registered and synchronized."""
    with subprocess.Popen([*PLUGIN, *options], stderr=subprocess.PIPE, text=True) as running:
        registered(running)
        try:
            yield running
        finally:
            running.terminate()
            expect("the plugin ends when it is told to", running.wait(SECONDS), 0)
            sys.stdout.write("".join(f"    {line}" for line in running.stderr or ()))


def registered(running: subprocess.Popen[str]) -> None:
    """Wait until the plugin is registered and synchronized."""
    for line in running.stderr or ():
        sys.stdout.write(f"    {line}")
        if "registered" in line:
            return
    raise SystemExit("the plugin has ended")


def left() -> list[str]:
    """What is left of the plugin's mounts."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in mounts if "/oci-bpf-hook/nri/" in line]


def results(printed: str) -> list[str]:
    texts = (line[line.index("{") :] for line in printed.splitlines() if '"result"' in line)
    return [json.loads(text)["result"] for text in texts]


def granted(what: str, found: tuple[bool, str], path: str = "/sys/fs/bpf") -> None:
    """The container has run SCRIPT with just the delegation that ASK asks for."""
    started, printed = found
    if not started:
        raise SystemExit(f"FAILED  {what}: {printed}")
    lines = [line for line in printed.splitlines() if f" {path} bpf " in line]
    flags = lines[0].split()[-3].split(",") if lines else []
    expect(
        what,
        (
            len(lines),
            {"nosuid", "nodev", "noexec", "delegate_maps=hash"} <= set(flags),
            "root 0:0 1777" in printed,
            results(printed),
        ),
        (1, True, True, ["ok", "EPERM"]),
    )


def refused(what: str, found: tuple[bool, str], *words: str) -> None:
    started, said = found
    expect(what, (started, [word for word in words if word not in said] and said), (False, []))


def cases(runtime: Runtime) -> None:
    script = SCRIPT.format("/sys/fs/bpf")
    granted("a pod that asks", runtime.run("web", ASK, script))
    started, printed = runtime.run("plain", {}, "cat /proc/mounts")
    expect("one that doesn't, and the image's label", (started, " bpf " in printed), (True, False))
    other = {f"{key}/other": text for key, text in ASK.items()}
    started, printed = runtime.run("web", other, "cat /proc/mounts")
    expect("one of whose containers another asks", (started, " bpf " in printed), (True, False))
    lies = {**other, "io.kubernetes.cri.container-name": "other"}
    started, printed = runtime.run("web", lies, "cat /proc/mounts")
    expect("the author can't name the container", (started, " bpf " in printed), (True, False))
    named = {f"{key}/probe": text for key, text in ASK.items()}
    granted("one by its container's name", runtime.run("web", named, script))
    elsewhere = {**ASK, "io.bpffs.path": "/opt/new/bpf"}
    found = runtime.run("web", elsewhere, f"{SCRIPT.format('/opt/new/bpf')}; env")
    granted("another path, which is missing", found, "/opt/new/bpf")
    token = "LIBBPF_BPF_TOKEN_PATH=/opt/new/bpf" in found[1]
    expect("libbpf is told of it", token, True)
    bad = {**ASK, "io.bpffs.typo": "x"}
    refused("a wrong key", runtime.run("web", bad, "true"), "io.bpffs.typo", "(exit code 10)")
    more = {**ASK, "io.bpffs.delegate_maps": "array"}
    refused("what no rule allows", runtime.run("web", more, "true"), "array", "(exit code 12)")
    no_rule = runtime.run("db", ASK, "true")
    refused("a pod that no rule is for", no_rule, "no rule of the policy", "(exit code 12)")
    host = runtime.attempt("web", ASK, "true", {}, host_users=True)
    refused("without a user namespace", host, "hostUsers: false", "(exit code 14)")
    volume = {7: [{1: "/opt", 2: "/tmp/volume"}]}
    Path("/tmp/volume").mkdir(exist_ok=True)
    in_the_way = runtime.attempt("web", elsewhere, "true", volume)
    refused("in a volume", in_the_way, "mount of its own", "(exit code 16)")
    expect("nothing is made in the volume", os.listdir("/tmp/volume"), [])
    at_once(runtime)
    expect("no mount is left", left(), [])


def at_once(runtime: Runtime) -> None:
    for number in range(20):
        started, said = runtime.run("web", ASK, "true")
        if not started:
            raise SystemExit(f"FAILED  pod {number}: {said}")
    expect("20 pods, one after the other", started, True)


def alone(runtime: Runtime, running: subprocess.Popen[str]) -> None:
    """What the engine does with a plugin that doesn't answer, and the plugin afterwards."""
    running.send_signal(signal.SIGSTOP)
    started, printed = runtime.run("web", ASK, "cat /proc/mounts")
    running.send_signal(signal.SIGCONT)
    expect(
        "a plugin that is stopped isn't waited for", (started, " bpf " in printed), (True, False)
    )
    registered(running)
    granted("it is back afterwards", runtime.run("web", ASK, SCRIPT.format("/sys/fs/bpf")))
    expect("no mount is left of that", left(), [])


def record(path: str) -> None:
    """Record a session to `path`: who doesn't ask, who asks, and who is refused."""
    config = configuration("runc")
    with engine(config) as runtime:
        done("ctr", "--namespace", "k8s.io", "images", "import", "/tmp/saved.tar")
        command = [sys.executable, "tests/kubernetes/recorder.py", RECORDED, NRI, path]
        with subprocess.Popen(command) as recorder, policy(RULE):
            while not os.path.exists(RECORDED):
                time.sleep(0.05)
            with plugin("--socket", RECORDED):
                for annotations in ({}, ASK, {"io.bpffs.typo": "x"}):
                    runtime.run("web", annotations, "true")
            recorder.wait(SECONDS)


def main() -> None:
    """Try it all, with each runtime; or record a session, if the environment says so."""
    os.umask(0o022)
    saved = archive()
    for line in (done("containerd", "--version"), done("runc", "--version")):
        sys.stdout.write(line)
    if "RECORD" in os.environ:
        record(os.environ["RECORD"])
        return
    with policy(RULE), ExitStack() as stack:
        running = None
        for binary in ("runc", "crun"):
            with engine(configuration(binary)) as runtime:
                done("ctr", "--namespace", "k8s.io", "images", "import", str(saved))
                if running is None:
                    started, printed = runtime.run("web", ASK, "cat /proc/mounts")
                    missing = (started, " bpf " in printed)
                    expect("without the plugin it is created as it is", missing, (True, False))
                    running = stack.enter_context(plugin())
                else:
                    registered(running)
                    expect("the plugin is back after the engine was restarted", True, True)
                sys.stdout.write(f"with {binary}:\n")
                cases(runtime)
                alone(runtime, running)


if __name__ == "__main__":
    main()

"""`make demo`: containers with a BPF token, under real podman with crun and with runc.

Everything it makes is in one directory in /tmp and in a mount namespace of its own, and
gone afterwards.  It fails if a container can do anything else than the demo says.
"""

import json
import shlex
import sys

from oci_bpf_hook.guard.pinned import AbsentError, in_force
from tests.support import policy
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime, enter_private_mounts
from tests.support.places import ROOT
from tests.support.podman import World
from tests.support.scratch import LAUNCHER

NAME = "demo"
HOOK_JSON = ROOT / "hooks.d" / "oci-bpf-hook.json"
# For a host without the guard: what the built-in policy would allow with it, and to one container.
POLICY = f"""\
version: 1
engine: podman
rules:
  - name: demo
    match: {{container: {NAME}}}
    allow:
      confined: false
      delegate_cmds: [map_create, prog_load]
      delegate_maps: [hash]
      delegate_progs: [socket_filter]
      delegate_attachs: [cgroup_inet_ingress]
"""
ANNOTATIONS = {
    "io.bpffs.delegate_cmds": "map_create:prog_load",
    "io.bpffs.delegate_maps": "hash",
    "io.bpffs.delegate_progs": "socket_filter",
    "io.bpffs.delegate_attachs": "cgroup_inet_ingress",
}
# What a program in the container tries through its token, and what comes of it.
ATTEMPTS = (
    ("make a token", ("token",), "token", "ok"),
    ("create a hash map", ("map", "1"), "result", "ok"),
    ("load a socket filter", ("prog", "1", "0"), "result", "ok"),
    ("create an array map", ("map", "2"), "result", "EPERM"),
    ("load a kprobe program", ("prog", "2", "0"), "result", "EPERM"),
)


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(world: World, runtime: Runtime, *command: str) -> CompletedProcess:
    name = f"--name={NAME}"
    done = world.run(runtime, name, annotations=ANNOTATIONS, command=command, capabilities=["BPF"])
    if done.returncode:
        raise SystemExit(f"podman failed: {done.stderr}")
    return done


def _show(world: World, runtime: Runtime) -> None:
    say(f"$ podman --runtime {runtime} run --name {NAME} --cap-add BPF --uidmap 0:100000:65536 \\")
    for key, text in ANNOTATIONS.items():
        say(f"      --annotation {key}={text} \\")
    say("      ... IMAGE mount -t bpf")
    say(_run(world, runtime, "mount", "-t", "bpf").stdout)
    for what, (verb, *arguments), key, expected in ATTEMPTS:
        command = ("probe", verb, "/sys/fs/bpf", *arguments)
        result = json.loads(_run(world, runtime, *command).stdout)[key]
        if result != expected:
            raise SystemExit(f"{shlex.join(command)} gave {result}, not {expected}")
        say(f"  {what:24} {result}")
    say()


def _refused(world: World) -> None:
    """A container that asks for something that isn't there doesn't start, and says why."""
    wrong = ANNOTATIONS | {"io.bpffs.delegate_maps": "hsah"}
    done = world.run("runc", annotations=wrong, command=["true"])
    if done.returncode == 0:
        raise SystemExit("a container with a misspelt map type was started")
    say("A container with a misspelt map type doesn't start, and the hook says why:\n")
    say("$ podman --runtime runc run --annotation io.bpffs.delegate_maps=hsah ... IMAGE true")
    say(said(done))


def said(done: CompletedProcess) -> str:
    """What the hook says in podman's error."""
    _, ours, words = done.stderr.partition("oci-bpf-hook: ")
    return f"  {ours}{words.partition('(exit code')[0].rstrip()}"


def without_guard() -> str:
    """Why there is no guard to confine a token with; "" where there is one."""
    try:
        with in_force():
            return ""
    except AbsentError as error:
        return str(error)


def _decide() -> None:
    """Have a policy in force that allows what is shown, and show it: the host's own may refuse."""
    why = without_guard()
    if not why:
        policy.POLICY.unlink(missing_ok=True)
        say("The built-in policy holds, and the guard is in force: what it allows is confined.\n")
        return
    policy.write(POLICY)
    say(f"Tokens can't be confined here: {why}. So the demo's own {policy.POLICY},")
    say(f"which the host doesn't see, trusts its container with the kernel:\n\n{POLICY}")


def set_apart() -> None:
    """Move into a mount namespace of our own, or end with a line that says what that takes."""
    try:
        enter_private_mounts()
    except PermissionError:
        sys.exit("this takes root, with CAP_SYS_ADMIN: it mounts and runs containers")


def main() -> None:
    """Run the demo."""
    set_apart()
    _decide()
    with World() as world:
        world.install_hook(LAUNCHER, HOOK_JSON)
        for runtime in RUNTIMES:
            _show(world, runtime)
        _refused(world)


if __name__ == "__main__":
    main()

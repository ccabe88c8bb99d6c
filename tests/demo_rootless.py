"""`make demo-rootless`: a user without any privilege gets what the policy allows that user.

The user exists in a mount namespace of the demo's own, as everything that it makes does, and is
gone afterwards.  It fails if a container can do anything else than the demo says.
"""

import json
import os
import tempfile
from pathlib import Path

from oci_bpf_hook.errors import REFUSED
from tests.demo import ATTEMPTS, said, say, set_apart, without_guard
from tests.support import policy
from tests.support.broker import Broker
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.podman import World
from tests.support.scratch import LAUNCHER, install, io
from tests.support.users import ALICE, users

HOOK_JSON = LAUNCHER.with_name("oci-bpf-hook-createContainer.json")
POLICY = """\
version: 1
rules:
  - name: one-user
    match: {{user: {user}}}
    allow:
      confined: {confined}
      delegate_cmds: [map_create, prog_load]
      delegate_maps: [hash]
      delegate_progs: [socket_filter]
      delegate_attachs: [cgroup_inet_ingress]
"""
ANNOTATIONS = io(
    delegate_cmds="map_create:prog_load",
    delegate_maps="hash",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)
BEYOND = ANNOTATIONS | io(delegate_progs="socket_filter:kprobe")


def _podman(
    world: World, runtime: Runtime, annotations: dict[str, str], *command: str
) -> CompletedProcess:
    return world.run(runtime, annotations=annotations, command=command, capabilities=["BPF"])


def _show(world: World, runtime: Runtime) -> None:
    say(f"{ALICE.name}$ podman --runtime {runtime} run --cap-add BPF \\")
    for key, text in ANNOTATIONS.items():
        say(f"      --annotation {key}={text} \\")
    say("      ... IMAGE mount -t bpf")
    words = [" ".join(["probe", verb, "/sys/fs/bpf", *rest]) for _, (verb, *rest), _, _ in ATTEMPTS]
    done = _podman(world, runtime, ANNOTATIONS, "sh", "-c", "; ".join(["mount -t bpf", *words]))
    if done.returncode:
        raise SystemExit(f"podman failed: {done.stderr}")
    mount, *answers = done.stdout.splitlines()
    say(mount)
    for (what, _, key, expected), answer in zip(ATTEMPTS, answers, strict=True):
        result = json.loads(answer)[key]
        if result != expected:
            raise SystemExit(f"to {what} gave {result}, not {expected}")
        say(f"  {what:24} {result}")
    say()


def _refused(world: World) -> None:
    """A container that asks for more than its user may have doesn't start, and says why."""
    done = _podman(world, "runc", BEYOND, "true")
    if f"exit status {REFUSED}" not in done.stderr:
        raise SystemExit(f"a container that asks for kprobe wasn't refused: {done.stderr}")
    say("A container that asks for more than the policy allows doesn't start, the hook says why,")
    say("and the audit trail has it:\n")
    say(f"{ALICE.name}$ podman --runtime runc run --annotation ...=socket_filter:kprobe ... true")
    say(said(done))
    say(f"# tail -1 {policy.AUDIT}")
    say(f"  {json.dumps(policy.audited()[-1])}")


def main() -> None:
    """Run the demo."""
    set_apart()
    why = without_guard()
    text = POLICY.format(user=ALICE.name, confined="false" if why else "true")
    policy.write(text)
    with tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        # Where the user can run it, wherever the checkout is.
        launcher = install(Path(directory) / "installed")
        with users(), Broker(), World(ALICE) as world:
            say(f"{ALICE.name} has no privilege. The demo's own {policy.POLICY}, which")
            say(f"the host doesn't see, says:\n\n{text}")
            if why:
                say(f"Tokens can't be confined here: {why}. So {ALICE.name} is trusted with the")
                say("kernel (confined: false).\n")
            world.install_hook(launcher, HOOK_JSON)
            for runtime in RUNTIMES:
                _show(world, runtime)
            _refused(world)


if __name__ == "__main__":
    main()

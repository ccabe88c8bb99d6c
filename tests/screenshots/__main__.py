"""python -m tests.screenshots [DIRECTORY]: doctor.png, inspect.png and page.png."""

import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.support import browser, engines
from tests.support.places import ROOT
from tests.support.podman import IMAGE, World
from tests.support.policy import in_force
from tests.support.scratch import LAUNCHER
from tests.support.terminal import on_terminal

_PICTURES: Final = ROOT / "docs" / "pictures"
_COLUMNS: Final = 150
_WIDTH: Final = 1280
# In it nothing runs but what this starts, under a name of its own: what else is on this host is
# nobody's business.
_APART: Final = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
_INSIDE: Final = "OCI_BPF_HOOK_SCREENSHOTS"
_ANYWHERE: Final = {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
_POLICY: Final = """\
version: 1
rules:
  - {name: tracing-team, match: {container: tracer}, allow: {profiles: [tracing], confined: false}}
  - {name: edge, match: {container: firewall}, allow: {profiles: [xdp, tc], confined: false}}
  - name: own-namespaces
    match: {host_network: false}
    allow: {profiles: [socket-filter, xdp], confined: false}
"""
_PAGE: Final = """\
<!DOCTYPE html><html><head><meta charset="utf-8"><style>
body {{ margin: 0; background: {background}; color: {foreground}; width: max-content; }}
pre {{ margin: 0; padding: 18px 22px; font: 13px/1.45 "DejaVu Sans Mono", monospace; }}
{stylesheet}
</style></head><body><pre><code>{code}</code></pre></body></html>
"""


class _Container:
    """What is started: its annotations and podman's options."""

    def __init__(self, name: str, profile: str, *options: str) -> None:
        self.name = name
        self.profile = profile
        self.options = options


_CONTAINERS: Final = (
    _Container("counter", "socket-filter", "--cap-add=BPF"),
    _Container("firewall", "xdp:tc", "--cap-add=BPF", "--cap-add=NET_ADMIN", "--network=host"),
    _Container("tracer", "tracing", "--cap-add=PERFMON"),
)


def main(directory: Path) -> None:
    """Write the three pictures into `directory`."""
    socket.sethostname("host-1")
    engines.enter_private_mounts()
    with World() as world:
        world.install_hook(LAUNCHER, LAUNCHER.with_suffix(".json"))
        policy = _POLICY.replace("version: 1\n", "version: 1\nengine: podman\n" + _profiles())
        with in_force(policy):
            try:
                for one in _CONTAINERS:
                    _start(world, one)
                _terminal(directory / "doctor.png", "doctor", "--container", "tracer")
                _terminal(directory / "inspect.png", "inspect")
                _page(directory / "page.png")
            finally:
                names = [one.name for one in _CONTAINERS]
                world.podman("rm", "--force", "--time", "0", *names, check=False)


def _profiles() -> str:
    """The built-in policy's profiles, for a policy that is another."""
    text = (ROOT / "oci_bpf_hook" / "policy.yaml").read_text(encoding="utf-8")
    return text[text.index("\nprofiles:") + 1 : text.index("\nrules:") + 1]


def _start(world: World, one: _Container) -> None:
    mapping = "0:100000:65536"
    world.podman(
        *("run", "--detach", "--name", one.name, "--pull", "never"),
        *("--uidmap", mapping, "--gidmap", mapping, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--annotation", f"io.bpffs.profile={one.profile}", *one.options),
        *(IMAGE, "sh", "-c", "trap exit TERM; sleep 1000 & wait"),
    )


def _terminal(picture: Path, *arguments: str) -> None:
    """A picture of what a command prints on a terminal."""
    _, output = on_terminal(
        [sys.executable, "-m", "oci_bpf_hook", *arguments], columns=_COLUMNS, env=_ANYWHERE
    )
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text(f"# oci-bpf-hook {' '.join(arguments)}", style="bold"))
    console.print(Text.from_ansi(output))
    with tempfile.TemporaryDirectory(prefix="obh-shot-", dir="/tmp") as directory:
        page = Path(directory, "terminal.html")
        page.write_text(console.export_html(code_format=_PAGE), encoding="utf-8")
        _shoot(page, picture)


def _page(picture: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="obh-shot-", dir="/tmp") as directory:
        page = Path(directory, "page.html")
        command = [sys.executable, "-m", "oci_bpf_hook", "inspect", "--html", str(page)]
        subprocess.run(command, cwd=ROOT, check=True)
        _shoot(page, picture)


def _shoot(page: Path, picture: Path) -> None:
    """The whole of the page, and no more."""
    right, bottom = browser.ask(
        page,
        "(element => [element.offsetLeft + element.scrollWidth, "
        "element.getBoundingClientRect().bottom])(document.querySelector('.scroll, pre'))",
        width=_WIDTH,
    )
    # As much below and beside it as there is before it.
    margin = 0 if "<pre>" in page.read_text(encoding="utf-8") else 34
    width, height = int(right) + margin, int(bottom) + margin
    browser.screenshot(page, picture, width=width, height=height, scale=2)


def _run(arguments: Sequence[str]) -> int:
    if _INSIDE not in os.environ:
        command = [*_APART, sys.executable, "-m", "tests.screenshots", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, _INSIDE: "1"}, check=False
        ).returncode
    main(Path(arguments[0]) if arguments else _PICTURES)
    return 0


sys.exit(_run(sys.argv[1:]))

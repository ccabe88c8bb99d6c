"""`oci-bpf-hook install` puts the hook where engines find it."""

import argparse
import os
import subprocess

from ...errors import DONE, USAGE, HookError, Problem
from ...install.containerd import CONFIG, DROP_IN
from ...install.layout import STAGES, Layout, install, lacks_guard
from ...install.steps import Step, untrusted
from ...paths import POLICY
from ..options.output import FAINT, JSON, WARNING, Output, print_json, styled
from ..options.table import argument

ABOUT = f"""
Installs the hook and its package, byte-compiled; this command with its man pages and completions;
the systemd units of the broker and the guard; and last the JSON that registers the hook with podman
and CRI-O. Running it again changes only what is different.

The JSON is written when everything else is in place, because an engine silently skips a hook whose
program is missing, and a broken JSON stops every container. install refuses directories that others
than root can write to.

It also compiles the policy, so that the first container doesn't have to wait for that.

install doesn't write the policy, {POLICY}; without it the built-in policy holds.
`systemctl enable --now oci-bpf-hook-broker.socket` starts the broker.

With --precreate podman's containers get what they need to use their token: CAP_BPF and the other
capabilities for what the policy grants, bpf(2) in their seccomp filter, and LIBBPF_BPF_TOKEN_PATH.
It takes effect once hooks_dir in containers.conf(5) also names
PREFIX/share/containers/oci/precreate.d.

With --engine containerd it also writes {DROP_IN}, which {CONFIG} has to import. The
drop-in gets the version of that file, because containerd ignores settings of another version. A
drop-in of the right version that is there already isn't changed.
"""
LOCATION = (
    argument(
        "--prefix",
        default="/usr",
        metavar="DIR",
        help="the directory to install below (default: /usr)",
    ),
    argument(
        *("--destdir",),
        default="",
        metavar="DIR",
        help="put DIR in front of every path, for making packages",
    ),
    argument("--dry-run", action="store_true", help="show the steps, and do nothing"),
)
ARGUMENTS = (
    *LOCATION,
    argument(
        *("--stage",),
        choices=STAGES,
        default="createRuntime",
        help="the stage that the hook is registered for (default: createRuntime)",
    ),
    argument(
        *("--engine",),
        choices=("podman", "cri-o", "containerd"),
        help="the engine that runs the hook, for the policy's rules (default: the one that is "
        "registered already)",
    ),
    argument(
        "--precreate",
        action="store_true",
        help="also give podman's containers what they need to use a token",
    ),
    JSON,
)
_WITHOUT = (
    "it isn't compiled here, and without the guard no confined grant can have programs; run `make "
    "guard`, which needs clang, and install again"
)


def run(options: argparse.Namespace) -> int:
    layout = located(options)
    steps = install(layout, options.stage, options.engine, precreate=options.precreate)
    problems = untrusted(steps, layout.top)
    if problems:
        raise HookError(USAGE, *problems)
    without = lacks_guard()
    take(steps, options, guard=not without)
    if not (layout.top or options.dry_run):
        _compile_policy(layout)
    if without and not options.json:
        Output().line(styled(WARNING, "without the guard"), f": {_WITHOUT}")
    return DONE


def _compile_policy(layout: Layout) -> None:
    """Have what was installed compile the policy, which would take the first hook long.

    Whether the policy is in order isn't said here: the hook and doctor say it.
    """
    command = [str(layout.path("bin", "oci-bpf-hook")), "policy", "show"]
    subprocess.run(command, capture_output=True, check=False)  # noqa: S603


def located(options: argparse.Namespace) -> Layout:
    """The layout below --prefix and --destdir.  Raises HookError (USAGE)."""
    for name, path in (("--prefix", options.prefix), ("--destdir", options.destdir or "/")):
        if not path.startswith("/") or ".." in path.split("/"):
            raise HookError(
                USAGE, Problem(f"{name} {path} isn't an absolute path", key=name, item=path)
            )
    prefix, top = options.prefix.rstrip("/"), options.destdir.rstrip("/")
    return Layout(prefix=prefix, top=top)


def take(steps: list[Step], options: argparse.Namespace, **said: object) -> None:
    """Take the steps that are needed, and show each.  With --json, `said` is printed as well.

    Raises OSError, HookError.
    """
    os.umask(0o022)
    out = Output()
    taken: list[Step] = []
    for step in steps:
        if not step.needed():
            continue
        if not options.json:
            out.line(step.describe())
        if not options.dry_run:
            step.execute()
        taken.append(step)
    if options.json:
        shown = [{"action": step.action, "path": str(step.path)} for step in taken]
        print_json({"dry_run": options.dry_run, "steps": shown, **said})
    elif options.dry_run:
        out.line(styled(FAINT, "nothing was done"))

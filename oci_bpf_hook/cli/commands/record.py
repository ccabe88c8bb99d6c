"""`oci-bpf-hook record` learns which delegation a program needs while it runs."""

import argparse
import json
import os
import resource
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from ... import whole
from ...advise import needs as needs_of
from ...advise.needs import Needs
from ...bpf.names import KINDS, Enum
from ...delegation.annotations import PATH, PREFIX
from ...errors import DONE, USAGE, HookError, quote
from ...formats import advised
from ...formats.snippets import dns_label
from ...kernel import enums as kernel
from ...oci import seccomp_profile
from ...recording import files, verify
from ...recording.learn import learn
from ...recording.live import receiver
from ...recording.live import run as session
from ...recording.recording import Recording
from ...recording.verify import Verdict
from ...running import programs
from ...text.strict_json import load_json
from ..options.output import JSON_FORM, print_json, printable
from ..options.table import argument

# The exit code of --verify if the needs aren't enough, and of --diff if the two differ.
NOT_ENOUGH = 1

ABOUT = """
Runs a command with everything delegated that the policy allows, watches its calls of bpf(2), and
prints the delegation that it needs in the same formats as advise. It is for programs whose needs no
object file shows: they generate BPF, choose types at run time, or make maps by hand.

The command runs in a throw-away user namespace, as root there, with all capabilities of that
namespace and none of the host's. Its files, network, environment, output and signals are the same
as without record. With --verify the command is run again with exactly what it needs, and then once
without each bit.

A recording can be saved, and later printed in another format. A recording can also be made of one
of podman's containers, of the containers of another engine that passes on seccomp profiles with a
listenerPath, or from a trace that strace wrote.
"""
ARGUMENTS = (
    argument(
        *("--container",),
        action="store_true",
        help="record a container: COMMAND is what follows `podman run`, OPTION... IMAGE ...",
        exclusive="source",
    ),
    argument(
        *("--listen",),
        metavar="SOCKET",
        help="record the containers whose seccomp profile has this listenerPath, until ^C",
        exclusive="source",
    ),
    argument(
        *("--from",),
        dest="recording",
        metavar="FILE",
        help="run nothing; read a recording that --save wrote; - means stdin",
        exclusive="source",
    ),
    argument(
        *("--from-strace",),
        metavar="FILE",
        help="run nothing; read a trace that strace -f -v -e trace=bpf -o FILE wrote, - for "
        "stdin; without -v it says less, and the advice has more than is needed",
        exclusive="source",
    ),
    argument(
        *("--diff",),
        nargs=2,
        metavar=("ONE", "OTHER"),
        help="run nothing; show how two recordings, or two files that advise wrote, differ",
        exclusive="source",
    ),
    argument(
        *("--verify",),
        action="store_true",
        help="run the command again with exactly what it needs, and then without each bit of that",
    ),
    argument(
        *("--exact",),
        action="store_true",
        help="keep the attach types that libbpf can do without, and add what that needs",
    ),
    argument(
        "--format",
        choices=advised.FORMS,
        default="text",
        help="the format to print (default: text)",
    ),
    JSON_FORM,
    argument(
        "--name", help="the name of the profile or container to print (default: from COMMAND)"
    ),
    argument("--save", metavar="FILE", help="also write the recording itself to FILE, as JSON"),
    argument(
        *("--output",),
        metavar="FILE",
        help="where to write what is needed (default: stderr if a command runs, otherwise stdout)",
    ),
    argument(
        *("--path",),
        default=PATH,
        metavar="DIR",
        help=f"where the program looks for the bpffs (default: {PATH})",
    ),
    argument(
        *("--private-network",),
        action="store_true",
        help="run the command in its own network namespace, for which the policy may allow more",
    ),
    argument("--seccomp", metavar="FILE", help="the engine's own seccomp profile, for --container"),
    argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="the command to run, with its arguments",
    ),
)


def run(options: argparse.Namespace) -> int:
    enums = kernel.enums(KINDS)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    _check(options, command)
    if options.diff:
        one, other = options.diff
        return _diff(one, other, enums, exact=options.exact, as_json=options.format == "json")
    with _output(options) as output:
        if options.save:
            files.writable(options.save)
        recording = _record(options, command, enums)
        if options.save:
            files.save(options.save, recording, enums)
        needed = learn(recording, enums, exact=options.exact)
        text = advised.render(options.format, needed, enums, _name(options, recording))
        for line in advised.left_out(options.format, needed):
            print(line, file=sys.stderr)
        if options.verify:
            return _verify(options, command, recording, needed, enums, text=text, output=output)
        print(text, file=output, flush=True)
    return DONE if options.recording else _end_as(recording.exit)


def _check(options: argparse.Namespace, command: list[str]) -> None:
    runs = not (options.recording or options.from_strace or options.diff or options.listen)
    if runs and not command:
        raise HookError(USAGE, "there is no command to record; write it after --")
    if not runs and command:
        raise HookError(USAGE, f"these options run nothing, so {quote(command[0])} can't be given")
    if options.verify and (not runs or options.container):
        raise HookError(USAGE, "--verify needs a command that it can run again")


def _record(
    options: argparse.Namespace, command: list[str], enums: Mapping[str, Enum]
) -> Recording:
    if options.recording:
        return files.load(options.recording, enums)
    if options.from_strace:
        return files.from_strace(options.from_strace, enums)
    if options.listen:
        return _listen(Path(options.listen))
    if options.container:
        return _container(options, command)
    return session.record(command, _settings(options), enums)


def _settings(options: argparse.Namespace, *, silent: bool = False) -> session.Settings:
    return session.Settings(
        path=options.path, private_network=options.private_network, silent=silent
    )


def _container(options: argparse.Namespace, command: list[str]) -> Recording:
    """Record one of podman's containers; podman gets the options that recording needs."""
    name = f"record-{secrets.token_hex(4)}"
    run = _run_directory()
    base = Path(options.seccomp) if options.seccomp else receiver.default_profile()
    recording = Recording(["podman", "run", *command])
    seccomp = run / f"{name}.json"
    with receiver.Receiver(run / f"{name}.sock") as socket:
        try:
            content = base.read_bytes()
            seccomp_profile.check(load_json(content))
            made = receiver.profile(content, run / f"{name}.sock")
            whole.write(seccomp, json.dumps(made).encode(), sync=False)
        except (OSError, ValueError) as error:
            raise HookError(USAGE, f"{base}: {error}") from None
        try:
            own = ["--annotation", f"{PREFIX}record={name}", f"--security-opt=seccomp={seccomp}"]
            argv = [_podman(), "run", *own, *command]
            recording.exit, recording.blind = receiver.run(argv, socket, recording.add)
        finally:
            seccomp.unlink()
    recording.end()
    return recording


def _podman() -> str:
    """The program podman; for root it is the installed one, whatever PATH sudo(8) has handed on."""
    if os.geteuid():
        return "podman"
    path = programs.find("podman")
    if path is None:
        raise HookError(USAGE, f"podman isn't in any of {', '.join(programs.PLACES)}; install it")
    return path


def _run_directory() -> Path:
    """The directory of the sockets to which a recorded container's runtime connects."""
    above = (
        os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}") if os.geteuid() else "/run"
    )
    return Path(above, "oci-bpf-hook", "record")


def _listen(path: Path) -> Recording:
    """Record every container that connects, until a signal ends this."""
    recording = Recording([f"listen {path.name}"])
    told, tell = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(tell, b"\n"))
    with receiver.Receiver(path) as socket:
        print(f"oci-bpf-hook: recording containers that connect to {path}", file=sys.stderr)
        supervisor = receiver.serve(socket, recording.add)
        supervisor.serve(told)
    supervisor.close()
    recording.blind = supervisor.blind
    recording.end()
    return recording


def _name(options: argparse.Namespace, recording: Recording) -> str:
    text = options.name or Path(recording.name.partition(" ")[0]).name.partition(".")[0]
    return dns_label(text, "program")


@contextmanager
def _output(options: argparse.Namespace) -> Iterator[TextIO]:
    """The stream for the result; by default it isn't the standard output of a recorded program."""
    if options.output in (None, "-"):
        runs = not (options.recording or options.from_strace)
        yield sys.stderr if runs and not options.output else sys.stdout
        return
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(whole.Replacement(options.output, devices=True))
        except OSError as error:
            raise HookError(USAGE, f"{options.output}: {error.strerror}") from None
        yield stack.enter_context(open(fd, "w", encoding="utf-8", closefd=False))


def _diff(one: str, other: str, enums: Mapping[str, Enum], *, exact: bool, as_json: bool) -> int:
    first, second = (files.load_needs(path, enums, exact=exact) for path in (one, other))
    if as_json:
        lacks = needs_of.difference(first, second, enums), needs_of.difference(second, first, enums)
        print_json(dict(zip(("first", "second"), lacks, strict=True)))
    else:
        for mark, mine, theirs in (("-", first, second), ("+", second, first)):
            for option, names in needs_of.difference(mine, theirs, enums).items():
                for name in names:
                    why = "; ".join(dict.fromkeys(reason.why for reason in mine.why(option, name)))
                    print(printable(f"{mark} {option} {name}: {why}"))
    return DONE if first.bits == second.bits else NOT_ENOUGH


def _verify(
    options: argparse.Namespace,
    command: list[str],
    recording: Recording,
    needed: Needs,
    enums: Mapping[str, Enum],
    *,
    text: str,
    output: TextIO,
) -> int:
    """Print the needs as `text`, and the result of running the command again with exactly these."""

    def again(masks: Mapping[str, int]) -> Recording:
        return session.record(command, _settings(options, silent=True), enums, masks=masks)

    if options.format != "json":
        print(text, file=output, flush=True)
    why = verify.enough(recording, needed, again, enums)
    verdicts = iter(()) if why else verify.verdicts(recording, needed, again, enums)
    if options.format == "json":
        bits = [{"option": one.option, "name": one.name, "why": one.why} for one in verdicts]
        verified = {"enough": not why, "why": why, "bits": bits}
        print(json.dumps({**json.loads(text), "verified": verified}, indent=2), file=output)
    else:
        # A format that is to be pasted gets no verdicts in it; they go to standard error.
        _print_verified(why, verdicts, output if options.format == "text" else sys.stderr)
    return NOT_ENOUGH if why else DONE


def _print_verified(why: str, verdicts: Iterator[Verdict], output: TextIO) -> None:
    """Print each verdict as it comes, since the command is run for every one."""
    if why:
        print(f"not enough: with exactly this {why}", file=output)
        return
    print("enough: with exactly this the command does the same", file=output, flush=True)
    for one in verdicts:
        said = f"needed: {one.why}" if one.why else "not needed: nothing changes"
        print(f"without {one.option} {one.name}: {said}", file=output, flush=True)


def _end_as(code: int | None) -> int:
    """Return the program's exit code, or end by the same signal as the program."""
    if code is None or code >= 0:
        return code or DONE
    sys.stdout.flush()
    # The program has dumped its own core; one of ours would be of no use.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The C library reserves two signals for itself, for which no handler can be set.
    if -code in signal.valid_signals() and -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code

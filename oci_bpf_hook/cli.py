"""The command `oci-bpf-hook`: what people run; the hook itself has a launcher of its own.

It composes and prints; what things mean is decided in the modules it calls.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from . import __version__, kernel
from .btf import BtfError
from .errors import DONE, EXITS, KERNEL_CANNOT, USAGE, HookError
from .names import KINDS, Enum
from .policy import ENGINES
from .policycommand import add_policy, add_request, run_lint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's own); its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return USAGE
    try:
        code = options.run(options)
        sys.stdout.flush()
    except HookError as error:
        print(f"oci-bpf-hook: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # Whoever read our output has seen enough; nor may the interpreter's end complain.
        sys.stdout = None
        return DONE
    assert isinstance(code, int)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oci-bpf-hook",
        description="BPF tokens for OCI containers in user namespaces.",
        epilog="exit codes: " + ", ".join(f"{code} {text}" for code, text in EXITS.items()),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    hook = commands.add_parser("hook", help="be the OCI runtime hook: the state is on stdin")
    hook.add_argument("--header", metavar="FILE", help="C header with the names, for want of BTF")
    hook.add_argument("--engine", choices=ENGINES, help="which engine runs it")
    hook.set_defaults(run=_hook)

    lint = commands.add_parser("lint", help="say what is doubtful about a request")
    add_request(lint)
    lint.add_argument("--strict", action="store_true", help="fail if anything is")
    lint.set_defaults(run=run_lint)

    add_policy(commands.add_parser("policy", help="check, show and try the policy"))

    names = commands.add_parser("kernel", help="show the names that can be delegated, and the bits")
    source = names.add_mutually_exclusive_group()
    source.add_argument("--btf", metavar="FILE", help="of the kernel with this BTF")
    source.add_argument("--header", metavar="FILE", help="of the kernel with this linux/bpf.h")
    source.add_argument("--table", action="store_true", help="of all kernels in the shipped table")
    names.add_argument("--json", action="store_true", help="as JSON")
    names.set_defaults(run=_kernel)
    return parser


def _hook(options: argparse.Namespace) -> int:
    from .hook import main as hook

    arguments = ["--header", options.header] if options.header else []
    return hook([*arguments, "--engine", options.engine] if options.engine else arguments)


def _kernel(options: argparse.Namespace) -> int:
    enums = _enums(options)
    if options.json:
        print(json.dumps({option: enum.values for option, enum in enums.items()}, indent=2))
        return DONE
    for kind in KINDS:
        print(f"{kind.option} (enum {kind.enum})")
        for name, value in enums[kind.option].values.items():
            print(f"  {value:2}  {name}")
    return DONE


def _enums(options: argparse.Namespace) -> dict[str, Enum]:
    if options.header:
        return kernel.from_header(KINDS, options.header)
    if options.table:
        return kernel.table().enums(KINDS)
    path = options.btf or kernel.VMLINUX
    try:
        return kernel.from_btf(KINDS, path)
    except (OSError, BtfError) as error:
        if options.btf:
            raise HookError(USAGE, f"--btf {path}: {error}") from None
        raise HookError(
            KERNEL_CANNOT, f"this kernel has no BTF ({error}); try --header or --table"
        ) from None

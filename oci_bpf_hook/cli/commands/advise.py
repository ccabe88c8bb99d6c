"""`oci-bpf-hook advise` says which delegation compiled BPF programs need."""

import argparse
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from ...advise import advice, embedded, feature_probes, needs, objects, sections
from ...advise.elf import MAGIC, ElfError
from ...advise.kernel import Kernel, union
from ...bpf import btf
from ...bpf.names import KINDS
from ...errors import BAD_OBJECT, DONE, USAGE, HookError, quote
from ...formats import advised
from ...formats.snippets import dns_label
from ...kernel import enums as kernel
from ..options.output import JSON_FORM
from ..options.table import argument

ABOUT = """
Reads compiled BPF objects, and programs that embed them, and prints the smallest delegation that
they need: every bit with what asks for it, the capabilities, and warnings. Nothing is loaded, no
privilege is needed, and it works on any host.

With several files it prints what they need together, and the share of each.
"""
ARGUMENTS = (
    argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a compiled BPF object, or a program that embeds BPF objects; - means stdin",
    ),
    argument(
        "--format",
        choices=advised.FORMS,
        default="text",
        help="the format to print (default: text)",
    ),
    JSON_FORM,
    argument(
        *("--loader",),
        choices=sections.LOADERS,
        default=sections.LIBBPF,
        help="the library that loads the objects (default: libbpf)",
    ),
    argument(
        *("--libbpf",),
        choices=feature_probes.RELEASES,
        help="the release of libbpf (default: all of these, with what any of them needs)",
    ),
    argument(
        *("--exact",),
        action="store_true",
        help="keep the attach types that libbpf would otherwise set to 0, which needs cgroup_sock",
    ),
    argument(
        *("--only",),
        action="append",
        default=[],
        metavar="PROGRAM",
        help="only the program with this name is loaded; may be repeated",
    ),
    argument(
        *("--skip",),
        action="append",
        default=[],
        metavar="PROGRAM",
        help="the program with this name isn't loaded; may be repeated",
    ),
    argument(
        "--btf",
        metavar="FILE",
        help="the BTF of the kernel that loads them (default: the running kernel's)",
    ),
    argument(
        *("--with",),
        action="append",
        default=[],
        metavar="FILE",
        dest="others",
        help="add the needs in FILE, a recording or JSON that advise wrote; may be repeated",
    ),
    argument("--name", help="the name of the profile or container to print (default: from FILE)"),
)
# The largest file that is read; a program that embeds objects is seldom a tenth of that.
_LARGEST = 1 << 29
_TOO_LARGE = f"it is larger than {_LARGEST >> 20} MiB; no program with BPF is"
_STDIN = "-"
# The most objects in a file; real programs have far fewer.
_OBJECTS_MAX = 4096
_ELF = (
    "it is an ELF file, and only its section .BTF is wanted; objcopy -O binary "
    "--only-section=.BTF --set-section-flags .BTF=alloc VMLINUX FILE writes that section"
)


def run(options: argparse.Namespace) -> int:
    target = _kernel(options.btf)
    found = _objects(options.files)
    _check_names(found, [*options.only, *options.skip])
    how = advice.Options(
        loader=options.loader,
        libbpf=options.libbpf,
        exact=options.exact,
        only=frozenset(options.only),
        skip=frozenset(options.skip),
        machine=os.uname().machine,
    )
    given = needs.union(_others(options, target))
    found_needs = advice.advise(found, how, target, given)
    print(advised.render(options.format, found_needs, target.names, _name(options)))
    for line in advised.left_out(options.format, found_needs):
        print(line, file=sys.stderr)
    return DONE


def needed(paths: Sequence[str]) -> needs.Needs:
    """What the objects in the files `paths` need on this kernel.  Raises HookError."""
    return advice.advise(_objects(paths), advice.DEFAULTS.on(os.uname().machine), _kernel(None))


def _kernel(path: str | None) -> Kernel:
    file = path or kernel.VMLINUX
    table = kernel.table().enums(KINDS)
    try:
        data = kernel.btf_in(file)
        known = btf.enums(data, KINDS)
    except (OSError, btf.BtfError) as error:
        if path:
            text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise HookError(USAGE, f"--btf {path}: {_ELF if _is_elf(path) else text}") from None
        # advise works on any host; what needs a kernel's own BTF reports that.
        return Kernel(names=table, known=table, btf=None)
    return Kernel(names=union(table, known), known=known, btf=data)


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _objects(paths: Sequence[str]) -> list[objects.Object]:
    """The objects in all files.  Raises HookError (BAD_OBJECT) with everything that is wrong."""
    problems: list[str] = []
    found: list[objects.Object] = []
    for path in dict.fromkeys(paths):
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        if path == _STDIN:
            shown = "standard input"
        try:
            found += _read(path, shown)
        except ModuleNotFoundError as error:
            raise HookError(USAGE, f"{error}: advise needs python3-pyelftools") from None
        except OSError as error:
            problems.append(f"{shown}: {error.strerror}")
        except ElfError as error:
            problems.append(f"{shown}: {error}")
    if problems:
        raise HookError(BAD_OBJECT, *problems)
    return found


def _read(path: str, shown: str) -> list[objects.Object]:
    data = _content(path)
    found: list[objects.Object] = []
    problem = ElfError("there is no BPF object in it")
    for start, content in embedded.find(data):
        if start == 0 and len(content) == len(data):
            return [objects.read(content, shown)]
        if len(found) == _OBJECTS_MAX:
            raise ElfError(f"there are more than {_OBJECTS_MAX} BPF objects in it")
        try:
            found.append(objects.read(content, f"{shown}@{start:#x}"))
        except ElfError as error:
            problem = ElfError(f"the BPF object at {start:#x}: {error}")
    if not found:
        raise problem
    return found


def _content(path: str) -> bytes:
    if path == _STDIN:
        # A pipe has no size to look at.
        data = sys.stdin.buffer.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ElfError(_TOO_LARGE)
        return data
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ElfError("it isn't a regular file")
        if status.st_size > _LARGEST:
            raise ElfError(_TOO_LARGE)
        return file.read(_LARGEST)


def _check_names(found: Sequence[objects.Object], names: Sequence[str]) -> None:
    if not names:
        return
    from ...similar import similar  # Imported only if names are given.

    known = [program.name for one in found for program in one.programs]
    problems = []
    for name in names:
        if name not in known:
            near = " or ".join(map(quote, similar(name, known)))
            hint = f"did you mean {near}?" if near else "advise lists them all"
            problems.append(f"there is no program {quote(name)}; {hint}")
    if problems:
        raise HookError(USAGE, *problems)


def _others(options: argparse.Namespace, target: Kernel) -> Iterator[needs.Needs]:
    if options.others:
        from ...recording.files import load_needs
    for path in options.others:
        try:
            yield load_needs(path, target.names, exact=options.exact)
        except HookError as error:
            raise HookError(error.code, *(f"--with {text}" for text in error.sentences)) from None


def _name(options: argparse.Namespace) -> str:
    text = options.name or os.path.basename(options.files[0]).partition(".")[0]
    return dns_label(text, "programs")

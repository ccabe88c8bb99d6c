"""BPF objects compiled for tests, each once a session."""

import functools
import sysconfig
import tempfile
from pathlib import Path

from oci_bpf_hook.kernel.enums import VMLINUX

from .consumer import CLANG, MACHINE, SOURCES
from .engines import require, run

CORPUS = SOURCES.parent / "corpus"
_GCC = (
    *("bpf-gcc", "-O2", "-gbtf", "-mcpu=v3", MACHINE),
    *("-idirafter", "/usr/include"),
    *("-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"),
)


def compiler(name: str) -> tuple[str, ...]:
    """`clang`, `clang-be` for the other byte order, or `gcc`."""
    if name == "gcc":
        return _GCC
    return tuple("bpfeb" if word == "bpf" and name == "clang-be" else word for word in CLANG)


@functools.cache
def compiled(name: str, *flags: str, by: str = "clang") -> bytes:
    """The object of the source `name`, in tests/corpus or tests/consumer."""
    (source,) = (
        path for path in (CORPUS / f"{name}.bpf.c", SOURCES / f"{name}.bpf.c") if path.exists()
    )
    return compile_text(source.read_text(encoding="utf-8"), *flags, by=by, beside=source.parent)


@functools.cache
def compile_text(text: str, *flags: str, by: str = "clang", beside: Path = CORPUS) -> bytes:
    """The object of the C `text`, which includes what is `beside` it."""
    with tempfile.TemporaryDirectory(prefix="obh-bpf-", dir="/tmp") as directory:
        source, target = Path(directory) / "source.bpf.c", Path(directory) / "object.o"
        source.write_text(text, encoding="utf-8")
        command = [*compiler(by), *flags, f"-I{beside}", "-o", str(target), "-c", str(source)]
        require(run(command))
        return target.read_bytes()


@functools.cache
def vmlinux() -> bytes | None:
    """This kernel's BTF; None if it has none, on a host where most tests are skipped."""
    path = Path(VMLINUX)
    return path.read_bytes() if path.exists() else None

"""The machine is what it says it is."""

from pathlib import Path

from .cases import Context


def case_release(context: Context) -> str:
    """The kernel's own word, which the host compares with the package's."""
    return context.release


def case_bpf_is_among_the_security_modules(context: Context) -> str:
    """Without any command line: Debian's kernels have BPF LSM in force."""
    modules = Path("/sys/kernel/security/lsm").read_text()
    assert "bpf" in modules.split(","), modules
    return modules

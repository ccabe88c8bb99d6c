"""machine.py: numbers by architecture, and never a wrong one."""

import re
from pathlib import Path

import pytest

from oci_bpf_hook.machine import MACHINES

# Where linux-libc-dev has them, by the machine's name here; asm-generic serves the newer ones.
HEADERS = {
    "x86_64": "x86_64-linux-gnu/asm/unistd_64.h",
    "i686": "x86_64-linux-gnu/asm/unistd_32.h",
    "aarch64": "asm-generic/unistd.h",
    "riscv64": "asm-generic/unistd.h",
    "loongarch64": "asm-generic/unistd.h",
}
AUDIT = Path("/usr/include/linux/audit.h")
ELF = Path("/usr/include/linux/elf-em.h")
NAMES = {
    "aarch64": "AARCH64",
    "armv7l": "ARM",
    "i686": "I386",
    "loongarch64": "LOONGARCH64",
    "ppc64le": "PPC64LE",
    "riscv64": "RISCV64",
    "s390x": "S390X",
    "x86_64": "X86_64",
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_the_number_of_bpf(name: str) -> None:
    path = Path("/usr/include") / HEADERS[name]
    if not path.exists():
        path = Path("/usr/include/asm-generic/unistd.h")
        name = "aarch64"
    (number,) = re.findall(r"#define __NR_bpf\s+(\d+)", path.read_text())
    assert MACHINES[name].bpf == int(number)


def test_the_audit_names() -> None:
    machines = dict(re.findall(r"#define (EM_\w+)\s+(\w+)", ELF.read_text()))
    text = AUDIT.read_text()
    flags = {"__AUDIT_ARCH_64BIT": 0x80000000, "__AUDIT_ARCH_LE": 0x40000000}
    assert set(NAMES) == set(MACHINES)
    for name, machine in MACHINES.items():
        (words,) = re.findall(rf"#define AUDIT_ARCH_{NAMES[name]}\s+\(?([\w|]+)\)?", text)
        found = 0
        for word in words.split("|"):
            found |= flags[word] if word in flags else int(machines[word], 0)
        assert machine.audit == found, name
        assert bool(found & flags["__AUDIT_ARCH_64BIT"]) == (machine.bits == 64)

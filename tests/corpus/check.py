"""Whether the advice for an object is right: it loads with all of that, and with nothing less.

What is loaded is compared with what the host's root loads without a token: the kernel's types,
flags, instructions and BTF, and the values of variables.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from oci_bpf_hook.advise import advice, feature_probes, objects
from oci_bpf_hook.advise.kernel import Kernel, union
from oci_bpf_hook.advise.needs import CAPABILITIES, CAPABILITY, Needs
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from tests.support.bpf import vmlinux
from tests.support.consumer import Report
from tests.support.tokens import Loads

_FAILED: Final = re.compile(r"libbpf: prog '([^']*)': failed to load: ")
# The helpers that read memory, and those that libbpf puts in their place.
_SAME_READS: Final = {112: 4, 113: 4, 4: 4, 114: 45, 115: 45, 45: 45}
_KNOWN: Final = kernel.enums(KINDS)
KERNEL: Final = Kernel(
    names=union(kernel.table().enums(KINDS), _KNOWN),
    known=_KNOWN,
    btf=vmlinux(),
)


class Whole(NamedTuple):
    """An object as the host's root loads it, without the programs that this kernel refuses."""

    path: Path
    skip: frozenset[str]
    loaded: dict[str, Any]


class Verdict(NamedTuple):
    """What is wrong with the advice for one object: nothing, in the best case.

    `refused` is what libbpf says where it doesn't load; `superfluous` are bits it loads as well
    without; `capabilities` is what is wrong with these.
    """

    name: str
    refused: Sequence[str]
    superfluous: Sequence[str]
    capabilities: Sequence[str]

    @property
    def right(self) -> bool:
        """Whether the bits are right."""
        return not self.refused and not self.superfluous

    def __str__(self) -> str:
        wrong = [*(f"refused: {line[:300]}" for line in self.refused[-3:])]
        wrong += [f"superfluous: {bit}" for bit in self.superfluous]
        wrong += [f"capability {text}" for text in self.capabilities]
        return f"{self.name}: {'; '.join(wrong) or 'right'}"


def on_the_host(host: Loads, path: Path) -> Whole | None:
    """The object as far as this kernel loads it; None if that is nothing."""
    names = {program.name for program in objects.read(path.read_bytes(), path.name).programs}
    skip: set[str] = set()
    while True:
        report = host.load(path, skip=skip)
        if report["result"] == "ok":
            loaded = _loaded(report)
            some = report["programs"] or not names
            return Whole(path, frozenset(skip), loaded) if some else None
        failed = {name for line in report["log"] for name in _FAILED.findall(line)} - skip
        if not failed:
            return None
        skip |= failed


def advised(wholes: Collection[Whole], *, exact: bool = False) -> Needs:
    """The advice for these objects together."""
    skip = frozenset(name for whole in wholes for name in whole.skip)
    options = advice.Options(
        loader="libbpf",
        libbpf=None,
        exact=exact,
        only=frozenset(),
        skip=skip,
        machine=os.uname().machine,
    )
    found = [objects.read(whole.path.read_bytes(), whole.path.stem) for whole in wholes]
    return advice.advise(found, options, KERNEL)


def check(loads: Loads, wholes: Sequence[Whole]) -> Verdict:
    """The verdict on the advice for these objects together."""
    needs = advised(wholes)
    name = " and ".join(whole.path.stem for whole in wholes)
    numbers = _numbers(needs)
    masks = needs.masks(KERNEL.names)
    missing = _differences(loads, wholes, masks, numbers)
    # With every capability then: what the verifier asks for is no bit's matter.
    refused = missing and _differences(loads, wholes, masks, None)
    superfluous = [
        f"{option}={bit}"
        for option, bit in sorted(needs.bits)
        if option != CAPABILITY
        and not _differences(
            loads, wholes, needs.without([(option, bit)]).masks(KERNEL.names), None
        )
    ]
    capabilities = []
    if not refused:
        if missing:
            capabilities.append(f"missing: {missing[-1][:200]}")
        capabilities += [
            f"superfluous: {number}"
            for number in sorted(numbers)
            if not _differences(loads, wholes, masks, numbers - {number})
        ]
    return Verdict(name, refused, superfluous, capabilities)


def _numbers(needs: Needs) -> set[int]:
    # Attaching isn't tried here, and what it takes beyond loading not asked for.
    return {
        CAPABILITIES[reason.name]
        for reason in needs.reasons
        if reason.option == CAPABILITY and not reason.why.endswith("attached to a cgroup")
    }


def _differences(
    loads: Loads,
    wholes: Sequence[Whole],
    masks: Mapping[str, int],
    capabilities: Collection[int] | None,
) -> list[str]:
    """How the first of the objects that loads otherwise does; nothing if they all load the same."""
    for whole in wholes:
        report = loads.load(whole.path, masks, capabilities, whole.skip)
        if report["result"] != "ok":
            return [f"{whole.path.stem}: {report['result']}", *report["log"]]
        if _loaded(report) != whole.loaded:
            return [f"{whole.path.stem} is loaded differently"]
    return []


def _loaded(report: Report) -> dict[str, Any]:
    programs = {name: _read_alike(one) for name, one in report["programs"].items()}
    return {"maps": report["maps"], "programs": programs}


def _read_alike(program: dict[str, Any]) -> dict[str, Any]:
    """The program without what differs if libbpf has put another helper into it that does the same.

    Its tag is a digest of all instructions, and so isn't compared then.
    """
    reads = feature_probes.read_alike([], os.uname().machine) and not _SAME_READS.keys().isdisjoint(
        program["helpers"]
    )
    same = sorted({_SAME_READS.get(number, number) for number in program["helpers"]})
    return {**program, "helpers": same, "tag": ""} if reads else program

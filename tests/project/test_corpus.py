"""The ground truth: advice on every object that this kernel can load, tried bit by bit.

For each the advised set loads it through a token, as the host's root loads it, and without any one
bit it isn't loaded or not as well. tests/corpus says how.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.advise.needs import CAPABILITIES, CAPABILITY
from tests.corpus.build import build
from tests.corpus.check import KERNEL, Whole, advised
from tests.corpus.truth import Truth, truth
from tests.support.consumer import missing
from tests.support.docs import PAGES
from tests.support.tokens import Loads

# In a hundred; and this many objects have to be there on any kernel that these tests run on.
ENOUGH = 97
TRIED = 150

# Objects whose capabilities are wrong: some of what can be done with pointers the verifier allows
# only with CAP_PERFMON, and these do it where the advice doesn't look. It warns that it may be so.
# xdp-dispatcher: a global function compares its argument, the context, with NULL.
UNTOLD = {"debian-xdp-dispatcher"}


@pytest.fixture(scope="module")
def paths() -> Iterator[list[Path]]:
    if lacks := missing():
        pytest.skip(f"this host lacks {', '.join(lacks)}; `make test` installs what it can")
    # Where the user namespace's root can read it.
    with tempfile.TemporaryDirectory(prefix="obh-corpus-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield build(directory)


@pytest.fixture(scope="module")
def found(paths: list[Path]) -> Truth:
    return truth(paths)


def wrong(found: Truth) -> str:
    return "\n".join(str(one) for one in (*found.verdicts, *found.pairs) if not one.right)


def test_the_bits(found: Truth, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{found}\n")
    assert found.tried >= TRIED
    assert found.right * 100 >= found.tried * ENOUGH, wrong(found)


def test_unions(found: Truth) -> None:
    assert all(pair.right for pair in found.pairs), wrong(found)


def test_the_capabilities(found: Truth) -> None:
    off = [str(one) for one in found.verdicts if one.capabilities and one.name not in UNTOLD]
    assert off == []


def test_that_the_advice_warns_of_them(found: Truth) -> None:
    for whole, verdict in zip(found.wholes, found.verdicts, strict=True):
        if verdict.capabilities:
            codes = {one.code for one in advised([whole]).warnings}
            assert "perhaps-perfmon" in codes, verdict.name


def test_the_corpus_has_every_kind(found: Truth) -> None:
    """Of what this kernel has: types of maps and programs, and what is peculiar to some objects."""
    lists = [advised([whole]).lists(KERNEL.names) for whole in found.wholes]
    maps = {name for one in lists for name in one["delegate_maps"]}
    progs = {name for one in lists for name in one["delegate_progs"]}
    # ext takes a program to replace a function of; lsm and lirc, what not every kernel has.
    assert KERNEL.known["delegate_progs"].values.keys() - progs <= {
        *("unspec", "ext", "lsm", "lirc_mode2")
    }
    assert KERNEL.known["delegate_maps"].values.keys() - maps <= {
        *("unspec", "cgroup_storage", "percpu_cgroup_storage", "insn_array")
    }
    names = {whole.path.stem for whole in found.wholes}
    assert {"variables", "kconfig", "usdt", "arena", "pinned", "flavour", "choices"} <= names


@pytest.fixture(scope="module")
def loads() -> Iterator[Loads]:
    with Loads() as found:
        yield found


def test_exact(found: Truth, loads: Loads) -> None:
    """With the declared attach types they load too."""
    optional = [whole for whole in found.wholes if _optional(whole)]
    assert len(optional) >= 20
    for whole in optional:
        needs = advised([whole], exact=True)
        assert ("delegate_progs", "cgroup_sock") in needs.bits
        numbers = {CAPABILITIES[name] for option, name in needs.bits if option == CAPABILITY}
        if whole.path.stem not in UNTOLD:
            report = loads.load(whole.path, needs.masks(KERNEL.names), numbers, whole.skip)
            assert report["result"] == "ok", (whole.path.stem, report["log"])


def _optional(whole: Whole) -> bool:
    return advised([whole]).bits != advised([whole], exact=True).bits


def test_the_figure_in_the_docs(found: Truth) -> None:
    """The figure that is published is one of such a run, and good enough."""
    match = re.search(r"right for (\d+) of the (\d+) objects", PAGES["docs/advise-and-record.md"])
    assert match
    right, tried = map(int, match.groups())
    assert tried >= TRIED
    assert right * 100 >= tried * ENOUGH

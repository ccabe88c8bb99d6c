"""What every test stands on: a private mount namespace, and no silent skips.

With `-n 3` (pytest-xdist) three workers share the tests, module by module.  Each has a mount
namespace of its own, and with it an /etc, a /run and a /var/log that the others don't see.

The pure core's tests run anywhere.  The others need root, a kernel with BPF tokens and
real engines; where one of these is missing they are skipped with its name, and with CI
set (or OCI_BPF_HOOK_FORCE=1, to force it by hand) that skip is a failure.
"""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import browser, engines, sandbox
from tests.support.podman import World
from tests.support.policy import REFUSALS, allow_everything
from tests.support.scratch import LAUNCHER

# Folders of test modules that need nothing but Python: those of the package that are pure, what
# reads and writes other programs' files, recordings that are there already, and the source itself.
PURE = {"advise", "bpf", "delegation", "formats", "policy", "recording", "source", "text"}
# What compiles objects, and programs that embed some.
TOOLS = ["strace", "nsenter", "clang", "bpf-gcc", "execsnoop", "xdp-loader"]
# And what the shim is compiled and tried with.
TOOLS += ["ld.lld", "musl-gcc", "bpftool", "ip", "tc"]
# And what boots machines, which are of this kind.
if os.uname().machine == "x86_64":
    TOOLS += ["qemu-system-x86_64", "zstd", "lz4", "xz"]
# The modules that take longest, longest first.  The session begins with them, so that no worker is
# still at one of them when the others have nothing left to do.
LONGEST = (
    *("engines/test_machines", "project/test_packages", "project/test_corpus"),
    *("project/test_upgrades", "install/test_upgrade", "engines/test_precreate_podman"),
    *("project/test_newcomers", "project/test_bench", "hook/test_paths", "project/test_profiles"),
    *("kernel/test_bits", "doctor/test_host", "engines/test_kubernetes", "engines/test_rootless"),
    *("commands/test_record", "commands/test_install", "project/test_screenshots"),
    *("commands/test_fuzz", "install/test_steps", "hook/test_deaths", "broker/test_hostile"),
    *("broker/test_service", "project/test_docs_commands", "pipeline/test_case"),
    *("engines/test_policy_podman", "hook/test_engines"),
)
HOOK_JSON = LAUNCHER.with_suffix(".json")
FORCED = "CI" in os.environ or "OCI_BPF_HOOK_FORCE" in os.environ
# How long an example takes is how busy the machine is.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")
FORCE = "OCI_BPF_HOOK_FORCE=1 makes this a failure"


def _missing() -> str:
    """What this host lacks for the tests with real namespaces and engines."""
    if os.geteuid() != 0:
        return "root"
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "a kernel with BTF"
    wanted = (*engines.TOOLS, *TOOLS, *sandbox.TOOLS, browser.NAME)
    tools = [tool for tool in wanted if not shutil.which(tool)]
    return f"{', '.join(tools)} (make test installs them)" if tools else ""


def pytest_sessionstart(session: pytest.Session) -> None:
    # A shell starts what is in the background with ^C ignored, and all our commands inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0 and not _has_workers(session.config):
        engines.enter_private_mounts()
        # What the tests delegate isn't the policy's matter, but in the policy's own tests.
        allow_everything()


def _has_workers(config: pytest.Config) -> bool:
    """Whether this process runs no test itself.

    Its workers inherit what it has, and an overlay on an overlay is as much as the kernel stacks.
    """
    return bool(config.getoption("tx", None)) and not hasattr(config, "workerinput")


def is_pure(path: Path) -> bool:
    """Whether the test module at `path` needs nothing but Python."""
    return path.parent.name in PURE and path.parent.parent == Path(__file__).parent


def _module(path: Path) -> str:
    """The module at `path` as LONGEST names it."""
    return f"{path.parent.name}/{path.stem}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pure", action="store_true", help="only what needs nothing but Python")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Not even imported, which would take longer than the tests that are left.
    pure = collection_path.is_dir() or is_pure(collection_path)
    return True if config.getoption("pure") and not pure else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(_module(item.path), len(order)))
    missing = _missing()
    if not missing:
        return
    for item in items:
        if not is_pure(item.path):
            item.add_marker(pytest.mark.skip(reason=f"this host lacks {missing}; {FORCE}"))


@pytest.fixture(autouse=True)
def _forgiven() -> None:
    """Each test may be refused as often as a user may be in a minute."""
    if os.geteuid() == 0:
        REFUSALS.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """podman with the hook, as it is shipped but for its place."""
    with World() as world:
        world.install_hook(LAUNCHER, HOOK_JSON)
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and FORCED:
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report

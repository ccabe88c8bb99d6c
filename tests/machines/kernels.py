"""Debian's kernels, each once downloaded into build/machines in the checkout.

apt gets them from the host's own mirror and checks their signatures, in directories of its own: the
host's sources and lists stay as they are.  The cloud kernels have the BPF and security options of
the general ones, and no drivers: 27 (6.1), 35 (6.12), 14 and 14 MB, with 30 MB of package lists.
What has been downloaded stays until somebody removes it (`make clean`).
"""

import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from .vmlinux import extract

# bookworm's 6.1 has no tokens (6.9 was the first with them), all others do.
SUITES: Final = ("bookworm", "trixie", "sid", "experimental")
CACHE: Final = Path(__file__).parents[2] / "build" / "machines"
_PACKAGE: Final = "linux-image-cloud-amd64"
# It has the keys of the suites to come as well.
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# What the host says of proxies and the like stays, and nothing else of its configuration.
_CONFIGURATION: Final = """\
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
Dir::Cache "{0}/cache";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{0}/state";
Dir::State::status "{0}/status";
"""
_VMLINUZ: Final = re.compile(r"(?:\./)?(?:boot/vmlinuz-|usr/lib/modules/)([^/]+)(?:/vmlinuz)?")


class MissingError(RuntimeError):
    """A kernel can't be had; says what for."""


class Kernel(NamedTuple):
    """A kernel: the suite it is from, its release (`uname -r`) and the ELF file to boot."""

    suite: str
    release: str
    path: Path


def kernels(suites: Sequence[str] = SUITES) -> dict[str, Kernel]:
    """The kernels of these suites, by their names.  Raises MissingError."""
    missing = [suite for suite in suites if not _kept(suite)]
    if missing:
        _download(missing)
    return {suite: kernel for suite in suites if (kernel := _kept(suite))}


def _kept(suite: str) -> Kernel | None:
    for path in CACHE.glob(f"{suite}_*"):
        return Kernel(suite, path.name.partition("_")[2], path)
    return None


def _run(*command: str | Path, config: Path | None = None, cwd: Path | None = None) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    if config:
        environment["APT_CONFIG"] = str(config)
    done = subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def _download(suites: Iterable[str]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="oci-bpf-hook-kernels-", dir="/tmp") as name:
        directory = Path(name)
        config = _configure(directory, suites)
        _run("apt-get", "update", config=config)
        packages = {suite: _package(suite, config) for suite in suites}
        _run("apt-get", "download", *sorted(set(packages.values())), config=config, cwd=directory)
        for suite, package in packages.items():
            (deb,) = directory.glob(f"{package.partition('=')[0]}_*.deb")
            _keep(suite, deb)


def _configure(directory: Path, suites: Iterable[str]) -> Path:
    """An apt configuration in `directory` that knows these suites and no others."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    archive = _archive(directory)
    # experimental is only what it adds to sid.
    known = {*suites, "sid"}
    sources = (f"deb [signed-by={_KEYRING}] {archive} {suite} main\n" for suite in sorted(known))
    (directory / "sources.list").write_text("".join(sources))
    lines = _run("apt-config", "dump").splitlines(keepends=True)
    kept = "".join(line for line in lines if line.startswith("Acquire::"))
    config = directory / "apt.conf"
    config.write_text(kept + _CONFIGURATION.format(directory))
    return config


def _archive(directory: Path) -> str:
    """Where the host gets Debian from."""
    if not _KEYRING.exists():
        raise MissingError(f"{_KEYRING} isn't there; install debian-archive-keyring")
    lists = f"Dir::State::lists={directory}/host"
    asking = ("indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    found = _run("apt-get", *asking)
    if not found:  # Its lists have been removed, as in images they often are.
        _run("apt-get", "-o", lists, "update")
        found = _run("apt-get", "-o", lists, *asking)
    if not found:
        raise MissingError("the sources of this host's apt have no archive of Debian's")
    return found.splitlines()[0]


def _package(suite: str, config: Path) -> str:
    """The package with the newest kernel of a suite, as `apt-get download` takes it."""
    fields = _show(suite, _PACKAGE, config)
    # What the newest is; where that is split, the part that has the kernel alone.
    for part in ("linux-image-", "linux-binary-"):
        if found := re.search(rf"\b{part}[^ ,]+", fields.get("Depends", "")):
            fields = _show(suite, found.group(), config)
    return f"{fields['Package']}={fields['Version']}"


def _show(suite: str, package: str, config: Path) -> dict[str, str]:
    release = f"APT::Default-Release={suite}"
    text = _run("apt-cache", "-o", release, "show", "--no-all-versions", package, config=config)
    pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {key: value for key, value in pairs if not key.startswith(" ")}


def _keep(suite: str, deb: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        release, vmlinuz = _vmlinuz(process.stdout, deb.name)
        process.kill()  # The rest is of no interest.
    new = CACHE / f".{suite}.new"
    new.write_bytes(extract(vmlinuz))
    new.rename(CACHE / f"{suite}_{release}")


def _vmlinuz(stream: IO[bytes] | None, deb: str) -> tuple[str, bytes]:
    """The release and the vmlinuz in a package's files."""
    assert stream
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            found = _VMLINUZ.fullmatch(member.name)
            content = tar.extractfile(member) if found and member.isfile() else None
            if found and content:
                return found[1], content.read()
    raise MissingError(f"{deb} has no vmlinuz")

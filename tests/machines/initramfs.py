"""What a machine has for a root file system: the host's Python, this checkout, and a shell.

Everything is the host's: /usr/bin/python3 with its standard library and shared libraries, a static
busybox, and what the product and its tests import beside that.  The checkout is at /checkout and
what a caller hands in at /files.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.support.consumer import wheel
from tests.support.policy import EVERYTHING, POLICY

from .cpio import archive

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = Path("/usr/bin/python3")
BUSYBOX: Final = Path("/usr/bin/busybox")
# Where the results go, a line of JSON each; the console is ttyS0.
RESULTS: Final = "/dev/ttyS1"
# Other programs that cases run.
_TOOLS: Final = ("nsenter", "unshare", "setpriv", "bpftool")
# What the policy's reader imports; newer versions of jsonschema stand on other packages.
_PACKAGES: Final = (
    *("yaml", "_yaml", "jsonschema", "attr", "attrs", "pyrsistent", "_pyrsistent_version.py"),
    *("jsonschema_specifications", "referencing", "rpds", "typing_extensions.py"),
)
# Of the standard library nobody misses these, which are half of it.
_LEFT_OUT: Final = (
    *("config-*", "test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip"),
    *("pydoc_data", "distutils", "site-packages", "dist-packages", "_test*", "_codecs_*", "_x*"),
    *("_ssl*", "_sqlite3*", "_curses*", "_dbm*", "_gdbm*", "_tkinter*", "readline*", "nis.*"),
)
_CHECKOUT: Final = ("oci_bpf_hook", "hooks.d", "schema", "tests/__init__.py")
_TESTS: Final = ("consumer", "corpus", "machines", "support")
_MOUNTS: Final = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("securityfs", "/sys/kernel/security"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
)
_INIT: Final = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin PYTHONDONTWRITEBYTECODE=1 HOME=/root
/bin/busybox --install -s /usr/bin
{mounts}
ip link set lo up
chmod 755 / /run
cd /checkout
{python} -m tests.machines.inside {results} {modules}
poweroff -f
"""


def build(modules: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """An initramfs whose init runs these modules' cases, with `files` by their names."""
    with tempfile.TemporaryDirectory(prefix="oci-bpf-hook-machine-", dir="/tmp") as name:
        root = Path(name)
        _directories(root)
        _system(root)
        _checkout(root / "checkout")
        # There from the beginning: a policy that was written just now is compiled at every grant.
        policy = root / POLICY.relative_to("/")
        policy.parent.mkdir()
        policy.write_text(EVERYTHING)
        for file, content in files.items():
            (root / "files" / file).write_bytes(content)
        _init(root, modules)
        return archive(root)


def _directories(root: Path) -> None:
    for name in ("files", "root", "var/log", "etc", *(target.strip("/") for _, target in _MOUNTS)):
        if not name.startswith("sys/"):
            (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")


def _system(root: Path) -> None:
    """Python, busybox, the other tools, and the libraries of all of them."""
    interpreter = PYTHON.resolve()
    found = (shutil.which(tool) for tool in _TOOLS)
    tools = [Path(tool) for tool in found if tool]
    for path in (interpreter, BUSYBOX, *tools):
        shutil.copy2(path, root / path.relative_to("/"))
    (root / PYTHON.relative_to("/")).symlink_to(interpreter.name)
    library = Path("/usr/lib") / interpreter.name
    shutil.copytree(
        library, root / library.relative_to("/"), ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )
    packages = root / "usr/lib/python3/dist-packages"
    _packages(packages)
    modules = [*(root / library.relative_to("/")).rglob("*.so"), *packages.rglob("*.so*")]
    # The host's libbpf loads the guard, whichever version it is.
    libbpf = Path("/usr/lib") / str(sysconfig.get_config_var("MULTIARCH")) / "libbpf.so.1"
    target = root / libbpf.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(libbpf.resolve(), target)
    _libraries(root, [interpreter, *tools, *modules, libbpf])


def _packages(target: Path) -> None:
    source = Path("/usr/lib/python3/dist-packages")
    target.mkdir(parents=True)
    for name in _PACKAGES:
        path = source / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns("tests"))
        elif path.exists():
            shutil.copy2(path, target)
    # A libbpf that knows tokens, and its libraries.
    for path in (wheel(), wheel().with_name("pylibbpf.libs")):
        shutil.copytree(path, target / path.name)


def _libraries(root: Path, programs: Iterable[Path]) -> None:
    """Copy what the dynamic linker finds for these, to where it does."""
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    for name in sorted(set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.MULTILINE))):
        path = Path(name)
        # /lib is a link into /usr, here as there.
        target = root / path.parent.resolve().relative_to("/") / path.name
        if not target.exists() and not path.is_relative_to(root):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path.resolve(), target)


def _checkout(target: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in (*_CHECKOUT, *(f"tests/{one}" for one in _TESTS)):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    # Compiled here: the machine would take seconds.
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "compileall",
        "-q",
        "-s",
        target,
        "-p",
        "/checkout",
        target,
    ]
    subprocess.run(command, check=True, env={"PATH": os.defpath})


def _init(root: Path, modules: Iterable[str]) -> None:
    mounts = "\n".join(
        f"mkdir -p {target} && mount -t {fstype} {fstype} {target}"
        if target in ("/tmp", "/run")
        else f"mount -t {fstype} {fstype} {target}"
        for fstype, target in _MOUNTS
    )
    path = root / "init"
    path.write_text(
        _INIT.format(
            mounts=mounts, python=PYTHON, results=RESULTS, modules=" ".join(sorted(modules))
        )
    )
    path.chmod(0o755)

"""Docker and containerd as Debian 13 has them, with this tree's hook and what contrib has for them.

Debian 12's Docker knows no CDI.  So this makes a root file system of Debian 13, which takes a
minute, some 600 MB and Debian's mirror: it is no part of the test suite.  mmdebstrap has to be
installed.  Mounts, network and cgroups are its own, and all of it is gone afterwards; with the name
of a directory it is made there, stays, and is taken from there the next time.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.engines import build_probe, make_rootfs
from tests.support.podman import as_root

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("docker.io", "docker-cli", "containerd", "runc", "mount", "passwd"),
    *("containernetworking-plugins", "iproute2"),
    *("python3", "python3-yaml", "python3-jsonschema", "python3-grpcio"),
)
# No daemon is started by its installation.
_POLICY = 'mkdir -p "$1/usr/sbin"; printf "#!/bin/sh\\nexit 101\\n" >"$1/usr/sbin/policy-rc.d"; '
_POLICY += 'chmod 0755 "$1/usr/sbin/policy-rc.d"'
# In namespaces of its own.  Not by chroot(2) alone: no user namespace can be made in one, and runc
# wants its root directory to be a mount.
_ENTER = r"""
set -eu
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
for directory in run tmp etc/cdi etc/oci-bpf-hook usr/libexec var/lib/containerd var/lib/docker \
    var/log; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=0755 tmpfs "$directory"
done
mkdir -p mnt tmp/src
for name in oci_bpf_hook schema hooks.d contrib tests; do
    cp -r "$2/$name" tmp/src
done
cp "$3" tmp/image.tar
pivot_root . mnt
exec chroot . /bin/sh -c 'umount -l /mnt && cd /tmp/src && exec python3 -B "$1"' sh "$4"
"""


def cgroup2() -> Path:
    """Where the host's cgroup2 hierarchy is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, fstype, *_ = line.split()
        if fstype == "cgroup2":
            return Path(point)
    raise SystemExit("no cgroup2 is mounted here")


def make(root: Path, suite: str = "trixie", packages: Sequence[str] = PACKAGES) -> None:
    """Make a root file system of a Debian with these packages."""
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(packages)}"]
    # A mirror may be older than its own lists say that it should be.
    command += ['--aptopt=Acquire::Check-Valid-Until "false"', f"--setup-hook={_POLICY}"]
    subprocess.run([*command, suite, root], check=True)


def enter(root: Path, scratch: Path, program: str = "tests/docker/inside.py") -> int:
    """Run the `program` of this tree there; its exit code."""
    image = scratch / "image.tar"
    with tarfile.open(image, "w") as tar:
        tree = make_rootfs(scratch / "image", build_probe(scratch / "probe"))
        tar.add(tree, arcname=".", filter=as_root)
    cgroup = cgroup2() / f"oci-bpf-hook-docker-{os.getpid()}"
    cgroup.mkdir()
    join = f'echo $$ >"{cgroup}/cgroup.procs" && exec "$@"'
    unshare = ("unshare", "--mount", "--cgroup", "--net", "--pid", "--fork", "--kill-child", "--")
    script = ("sh", "-c", _ENTER, "sh", str(root), str(ROOT), str(image), program)
    try:
        done = subprocess.run(["sh", "-c", join, "sh", *unshare, *script], check=False)
    finally:
        for path in sorted(cgroup.rglob("*/"), reverse=True):
            path.rmdir()
        cgroup.rmdir()
    return done.returncode


def main() -> int:
    """Make what is missing, run it, and take away what isn't to stay."""
    scratch = Path(tempfile.mkdtemp(prefix="oci-bpf-hook-docker-"))
    try:
        root = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else scratch / "root"
        if not (root / "usr").exists():
            make(root)
        return enter(root, scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())

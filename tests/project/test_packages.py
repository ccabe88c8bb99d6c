"""The Debian and the RPM package: built, looked into, installed for real, upgraded and removed."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from oci_bpf_hook.paths import CACHE, GUARD, RUN
from tests.support import policy
from tests.support.docs import PAGES, broken, pages
from tests.support.packages import (
    ALONE,
    ASK,
    EPOCH,
    HOOK_JSON,
    LIBEXEC,
    MOUNTED,
    NEWER,
    PACKAGE,
    booted,
    changes,
    granted,
    manager,
    package,
    podman_as_installed,
    run,
    stale,
    traced,
    written,
)
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT
from tests.support.podman import IMAGE

DEVICE = ("--device", "bpffs.io/profile=xdp")
# PyPI's names, and those of the two distributions.
NAMES = {
    "jsonschema": ("python3-jsonschema", "python3-jsonschema"),
    "PyYAML": ("python3-yaml", "python3-pyyaml"),
    "pyelftools": ("python3-pyelftools", "python3-pyelftools"),
    "rich": ("python3-rich", "python3-rich"),
}
# Without these the command has less to show; the hook and the broker need the others.
OPTIONAL = {"pyelftools", "rich"}


def dependencies() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return {re.split("[>=]", one)[0] for one in project["dependencies"]}


# ---- what is in them ---------------------------------------------------------------------------


def test_lintian(built: Path) -> None:
    # Its exit status counts what is overridden, once that is to be shown; what it prints tells all.
    show = ["lintian", "--allow-root", "--show-overrides", package(built, "deb")]
    done = subprocess.run(show, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    # N: is an override's comment.
    said = [line for line in done.stdout.splitlines() if not line.startswith("N: ")]
    overridden = [re.match(r"O: oci-bpf-hook: (\S+)", line) for line in said]
    assert all(overridden), said
    # And nothing is overridden that lintian wouldn't say.
    overrides = (ROOT / "contrib" / "debian" / "lintian-overrides").read_text()
    tags = re.findall(r"(?m)^oci-bpf-hook: (\S+)", overrides)
    assert {one[1] for one in overridden if one} == set(tags)


def test_what_debian_asks_of_every_package(built: Path) -> None:
    """What contrib/debian has beside control, rules and the scripts: copyright and docs."""
    listing = run("dpkg-deb", "-c", package(built, "deb"))
    shown = re.findall(r"(?<=/usr/share/doc/oci-bpf-hook/)\S+", listing)
    files = {name for name in shown if not name.endswith("/")}
    pictures = {f"docs/pictures/{path.name}" for path in (ROOT / "docs" / "pictures").iterdir()}
    assert files == {*PAGES, *pictures, "CHANGELOG.md", "changelog.gz", "copyright"}
    listing = run("rpm", "-qpl", package(built, "rpm"))
    assert re.search(r"/doc/\S*oci-bpf-hook\S*/docs/security\.md$", listing, re.MULTILINE)


def test_the_pages_and_their_links_are_there(built: Path, tmp_path: Path) -> None:
    """In both packages, and what their links name is where they say."""
    rpm, deb = tmp_path / "rpm", tmp_path / "deb"
    rpm.mkdir()
    run("dpkg-deb", "-x", package(built, "deb"), str(deb))
    run("sh", "-euc", f"rpm2archive --nocompression - <'{package(built, 'rpm')}' | tar -x", cwd=rpm)
    for root in (deb, rpm):
        (readme,) = root.glob("usr/share/doc/**/README.md")
        assert pages(readme.parent) == PAGES
        assert broken(readme.parent) == []


def test_the_same_source_makes_the_same_package(built: Path, tmp_path: Path) -> None:
    run(str(ROOT / "contrib" / "debian" / "build"), str(tmp_path), epoch=EPOCH)
    ours, again = (Path(package(directory, "deb")) for directory in (built, tmp_path))
    assert ours.name == again.name
    assert ours.read_bytes() == again.read_bytes()


def test_what_they_depend_on_is_what_the_package_imports(built: Path) -> None:
    assert dependencies() == set(NAMES)
    for kind, column in (("deb", 0), ("rpm", 1)):
        path = package(built, kind)
        if kind == "deb":
            depends, recommends = (
                run("dpkg-deb", "-f", path, f) for f in ("Depends", "Recommends")
            )
        else:
            depends, recommends = (
                run("rpm", "-qp", f"--{w}s", path) for w in ("require", "recommend")
            )
        for name, names in NAMES.items():
            assert names[column] in (recommends if name in OPTIONAL else depends), (kind, name)
        assert "podman" in recommends
        assert re.search(r"python3 \(?>= 3\.11", depends)


def test_they_hold_what_install_installs(built: Path, tmp_path: Path) -> None:
    run("make", "install", f"DESTDIR={tmp_path}")
    installed = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_file()}
    listed = set(run("rpm", "-qlp", package(built, "rpm")).split("\n"))
    in_rpm = {path.removesuffix(".gz") for path in listed}
    assert installed <= in_rpm
    listing = run("dpkg-deb", "-c", package(built, "deb")).splitlines()
    in_deb = {line.split(maxsplit=5)[5][1:].removesuffix(".gz") for line in listing}
    # dpkg has these made on the machine itself.
    assert installed - in_deb == {path for path in installed if "__pycache__" in path}
    for order in ("el", "eb"):
        assert {f"{PACKAGE}/guard/lsm/guard.bpf{order}.o"} <= in_rpm & in_deb
    programs = {line.split(maxsplit=5)[5][1:] for line in listing if line.startswith("-rwx")}
    assert programs == {
        "/usr/bin/oci-bpf-hook",
        f"{LIBEXEC}/oci-bpf-hook",
        f"{PACKAGE}/hooks/oci-bpf-hook",
        "/usr/share/python3/runtime.d/oci-bpf-hook.rtupdate",
    }


def test_they_build_the_guard_and_the_shim_that_they_hold(built: Path, tmp_path: Path) -> None:
    """It is compiled anew, whatever was there, and loaded by a library that is recommended."""
    run(str(ROOT / "contrib" / "build-guard"), str(tmp_path))
    run(str(ROOT / "contrib" / "build-shim"), str(tmp_path))
    run("dpkg-deb", "-x", package(built, "deb"), str(tmp_path / "deb"))
    (tmp_path / "rpm").mkdir()
    unpack = 'rpm2cpio "$0" | cpio --quiet -id'
    run("sh", "-c", unpack, package(built, "rpm"), cwd=tmp_path / "rpm")
    for kind in ("deb", "rpm"):
        lsm = tmp_path / kind / str(PACKAGE)[1:] / "guard" / "lsm"
        for path in tmp_path.glob("*.o"):
            assert (lsm / path.name).read_bytes() == path.read_bytes()
        assert len(list(lsm.glob("*.o"))) == 2
        assert (lsm / "kfuncs.json").exists()
        libraries = sorted((tmp_path / kind / str(PACKAGE)[1:] / "shim").glob("*.so"))
        assert [path.name for path in libraries] == [
            path.name for path in sorted(tmp_path.glob("*.so"))
        ]
        assert len(libraries) == 2
        for path in libraries:
            assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    assert "libbpf1" in run("dpkg-deb", "-f", package(built, "deb"), "Recommends")
    assert "libbpf" in run("rpm", "-qp", "--recommends", package(built, "rpm"))


# ---- Debian ------------------------------------------------------------------------------------


def test_dpkg_installs_upgrades_removes_and_purges(built: Path, newer: Path, host: Path) -> None:
    policy = Path("/etc/oci-bpf-hook/policy.yaml")
    before = written(host) - {str(policy), str(policy.parent)}
    run("dpkg", "-i", package(built, "deb"))
    assert PACKAGE.is_dir()
    assert stale() == []
    with podman_as_installed() as world:
        assert granted(world)
        # One that runs keeps what it has, whatever becomes of the package.
        world.run("crun", "-d", "--name", "running", command=["sleep", "600"], annotations=ASK)
        run("dpkg", "-i", package(newer, "deb"))
        assert NEWER in run("oci-bpf-hook", "--version", cwd=host)
        assert (PACKAGE / "of_another_version.py").exists()
        assert stale() == []
        assert granted(world)
        mounts = ("exec", "running", "cat", "/proc/mounts")
        assert MOUNTED in world.podman(*mounts).stdout
        # And back again: what only the newer one has is gone.
        run("dpkg", "-i", package(built, "deb"))
        assert not list(PACKAGE.rglob("*of_another_version*"))
        assert stale() == []
        assert granted(world)
        policy.write_text(run("oci-bpf-hook", "policy", "show", cwd=host))
        run("oci-bpf-hook", "policy", "check", cwd=host)
        run("dpkg", "-r", "oci-bpf-hook")
        assert MOUNTED in world.podman(*mounts).stdout
        # Containers start, and whoever asks gets nothing.
        assert not granted(world)
        # What is kept is the administrator's.
        kept = written(host) - before
        assert kept == {
            "/etc/logrotate.d/oci-bpf-hook",
            "/etc/oci-bpf-hook",
            str(policy),
            "/var/log/oci-bpf-hook",
            "/var/log/oci-bpf-hook/audit.jsonl",
        }
        run("dpkg", "-P", "oci-bpf-hook")
        assert written(host) == before
        for directory in (LIBEXEC, HOOK_JSON.parent, Path("/run/oci-bpf-hook")):
            assert not directory.exists(), directory


def test_dpkg_puts_the_json_last_and_takes_it_first(built: Path, host: Path) -> None:
    trace = host / "trace"
    run(*traced(trace), "dpkg", "-i", package(built, "deb"))
    placed = [path for call, path in changes(trace) if call == "rename" and ".pyc" not in path]
    ours = [path for path in placed if path.startswith(f"{LIBEXEC}/")]
    assert len(ours) > 50
    assert placed.index(str(HOOK_JSON)) > max(map(placed.index, ours))
    run(*traced(trace), "dpkg", "-P", "oci-bpf-hook")
    removed = [path for _, path in changes(trace) if path.startswith("/usr")]
    program = [
        path for path in removed if path.startswith(str(LIBEXEC)) and "__pycache__" not in path
    ]
    assert len(program) > 50
    assert removed.index(str(HOOK_JSON)) < min(map(removed.index, program))


@pytest.mark.parametrize("first", ["make", "dpkg", "devices", "itself"])
def test_whatever_goes_first_containers_start(first: str, built: Path, host: Path) -> None:
    """What make and dpkg have installed over each other, and CDI devices that name it."""
    before = written(host)
    make, dpkg = ["make", "uninstall"], ["dpkg", "-P", "oci-bpf-hook"]
    devices, itself = ["oci-bpf-hook", "cdi", "remove"], ["oci-bpf-hook", "uninstall"]
    orders = {
        "make": [make, dpkg],
        "dpkg": [dpkg, make],
        "devices": [devices, dpkg, make],
        "itself": [itself, make, dpkg],
    }
    run("make", "install")
    run("dpkg", "-i", package(built, "deb"))
    run("make", "install")
    run("oci-bpf-hook", "install", "--stage", "createContainer", "--precreate")
    run("oci-bpf-hook", "cdi", "generate")
    with podman_as_installed() as world:
        conf = world.directory / "containers.conf"
        drop_in = (ROOT / "contrib" / "podman" / "precreate.conf").read_text()
        conf.write_text(
            conf.read_text().replace("[engine]\n", drop_in[drop_in.index("[engine]") :])
        )
        assert granted(world)
        assert MOUNTED in world.run("crun", *DEVICE, command=["cat", "/proc/mounts"]).stdout
        world.podman("create", "--name", "stopped", "--pull=never", *DEVICE, IMAGE, "true")
        for command in orders[first]:
            run(*command)
            # Who asks by annotation starts; who names a device is told that there is none.
            assert granted(world) is (command == devices)
            with_device = world.run("crun", *DEVICE, command=["true"])
            started = world.podman("start", "--attach", "stopped", check=False)
            for done in (with_device, started):
                assert done.returncode != 0
                assert "unresolvable CDI devices bpffs.io/profile=xdp" in done.stderr
    assert written(host) - before <= {"/etc/cdi", "/var/log/oci-bpf-hook"}
    assert not LIBEXEC.exists()


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_it_stays_for_a_device_that_isn_t_ours(kind: str, built: Path, host: Path) -> None:
    rpm = ["rpm", "--dbpath", str(host / "db"), "--nodeps"]
    install, remove = {
        "deb": (["dpkg", "-i"], ["dpkg", "-r", "oci-bpf-hook"]),
        "rpm": ([*rpm, "-i"], [*rpm, "-e", "oci-bpf-hook"]),
    }[kind]
    run(*install, package(built, kind))
    run("oci-bpf-hook", "cdi", "generate")
    theirs = Path("/etc/cdi/theirs.yaml")
    theirs.write_text(Path("/etc/cdi/bpffs.io-profile.json").read_text().replace("bpffs", "their"))
    device = ("--device", "their.io/profile=xdp")
    with podman_as_installed() as world:
        for command in (remove, ["make", "uninstall"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            assert done.returncode != 0
            said = f"{theirs} runs the hook {LIBEXEC}/oci-bpf-hook, and once the hook is gone no "
            assert said in done.stdout + done.stderr
            assert granted(world)
            for one in (DEVICE, device):
                mounts = world.run("crun", *one, command=["cat", "/proc/mounts"])
                assert MOUNTED in mounts.stdout, mounts.stderr
        theirs.unlink()
        run(*remove)
        assert not granted(world)
    assert not LIBEXEC.exists()
    assert list(theirs.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_it_stays_while_the_guard_holds_somebody(kind: str, built: Path, host: Path) -> None:
    """Or may hold: the guard is of another version, and so nothing says whom it doesn't."""
    install, remove = manager(kind, host)
    run(*install, package(built, kind))
    run("oci-bpf-hook", "cdi", "generate")
    before = written(host)
    with bpffs() as place, podman_as_installed() as world:
        pin()
        world.run("crun", "-d", "--name", "held", command=["sleep", "600"], annotations=ASK)
        for command in (remove, ["make", "uninstall"], ["oci-bpf-hook", "uninstall"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            assert done.returncode != 0
            said = "held may be confined by the guard, and without the guard would be trusted"
            assert said in done.stdout + done.stderr
            assert Path(GUARD).is_dir()
            assert written(host) - {str(policy.AUDIT), str(policy.AUDIT.parent)} == before
        world.podman("rm", "--force", "--time", "0", "held")
        run(*ALONE, *remove)
        assert {path.name for path in place.iterdir()} <= {"maps.debug", "progs.debug"}
    assert not LIBEXEC.exists()


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_the_first_hook_needs_not_compile_the_policy(kind: str, built: Path, host: Path) -> None:
    # One that has just been written isn't taken to stay as it is; the built-in one stays.
    policy.POLICY.unlink()
    Path(RUN, CACHE).unlink(missing_ok=True)
    run(*manager(kind, host)[0], package(built, kind))
    assert Path(RUN, CACHE).exists()


@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm"])
@pytest.mark.parametrize("action", ["remove", "purge", "configure", "upgrade"])
def test_maintainer_scripts_where_systemd_cant_be_asked(
    script: str, action: str, host: Path
) -> None:
    """/run/systemd/system is there and no systemd is, as in a chroot: nothing fails for that."""
    with booted():
        run("sh", str(ROOT / "contrib" / "debian" / script), action, "0.0.1")


# ---- RPM ---------------------------------------------------------------------------------------


def test_rpm_installs_upgrades_and_erases(built: Path, newer: Path, host: Path) -> None:
    # rpm's own record is elsewhere, and knows no package of Debian's.
    rpm = ("rpm", "--dbpath", str(host / "db"), "--nodeps")
    before = written(host)
    run(*rpm, "-i", package(built, "rpm"))
    assert stale() == []
    with podman_as_installed() as world:
        assert granted(world)
        run(*rpm, "-U", package(newer, "rpm"))
        assert NEWER in run("oci-bpf-hook", "--version", cwd=host)
        assert stale() == []
        assert granted(world)
        run(*rpm, "-e", "oci-bpf-hook")
        assert not granted(world)
    assert written(host) - before == {
        "/var/log/oci-bpf-hook",
        "/var/log/oci-bpf-hook/audit.jsonl",
    }
    assert not LIBEXEC.exists()


def test_rpm_keeps_to_the_spec_that_is_here(built: Path) -> None:
    spec = ROOT / "contrib" / "rpm" / "oci-bpf-hook.spec"
    said = run("rpmspec", "-q", "--define", "hook_version 1", "--qf", "%{NAME} %{ARCH}", str(spec))
    assert said == "oci-bpf-hook noarch"
    done = subprocess.run(["rpm", "-K", package(built, "rpm")], capture_output=True, check=False)
    assert done.returncode == 0

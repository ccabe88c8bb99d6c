"""`oci-bpf-hook convert`: every direction, there and back, and what has no equivalent."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import ALL_BITS, KINDS
from oci_bpf_hook.cli.commands.convert import _READERS, _WRITERS
from oci_bpf_hook.delegation.annotations import PREFIX, Request, parse
from oci_bpf_hook.errors import BAD_ANNOTATION, UNKNOWN_NAME, USAGE
from oci_bpf_hook.formats import delegation
from oci_bpf_hook.formats.delegation import Delegation
from tests.formats.test_containers import POD, QUADLET
from tests.support.command import Done, answer, command

# Of its documentation, and can't load a program.
INCUS = """\
name: c1
config:
  security.bpffs.delegate_cmds: map_create,obj_get,link_create
  security.bpffs.delegate_maps: hash,array
  security.bpffs.delegate_progs: socket_filter
  security.bpffs.delegate_attachs: any
  security.bpffs.path: /run/bpf
"""
LXD = """\
name: c2
config:
  security.delegate_bpf: "true"
  security.delegate_bpf.prog_types: socket_filter
  security.delegate_bpf.attach_types: cgroup_inet_ingress
  security.delegate_bpf.cmd_types: prog_load:map_create
  security.delegate_bpf.map_types: ringbuf
"""
SYSTEMD = """\
[Service]
ExecStart=/bin/true
PrivateBPF=yes
BPFDelegateCommands=BPFObjPin
BPFDelegateCommands=
BPFDelegateCommands=BPFMapCreate,BPFProgLoad
BPFDelegateCommands=BPFBtfLoad
BPFDelegateMaps=BPFMapTypeCpumap
BPFDelegatePrograms=BPFProgTypeNetfilter
BPFDelegateAttachments=BPFNetfilter
"""
ANNOTATIONS = "# mine\nio.bpffs.delegate_cmds = map_create, prog_load\nio.bpffs.mode=0700\n\n"
PODMAN = "podman run --annotation \\\n 'io.bpffs.delegate_cmds=any' --name=web IMAGE # x\n"
SOURCES = {
    "annotations": ANNOTATIONS,
    "incus": INCUS,
    "kubernetes": POD,
    "lxd": LXD,
    "podman": PODMAN,
    "quadlet": QUADLET,
    "systemd": SYSTEMD,
}


def convert(source: str, target: str, text: str) -> Done:
    return command("convert", "--from", source, "--to", target, stdin=text)


def annotations(source: str, text: str) -> dict[str, str]:
    done = convert(source, "annotations", text)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_every_source_is_tested() -> None:
    assert SOURCES.keys() == _READERS.keys() == _WRITERS.keys()


@pytest.mark.parametrize("target", _WRITERS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_direction(source: str, target: str) -> None:
    code, found = answer("convert", "--from", source, "--to", target, stdin=SOURCES[source])
    assert code == 0
    assert all(one["text"].endswith("\n") for one in found)
    # What comes out is understood again.
    for one in found:
        assert annotations(target, one["text"]).keys() <= {
            PREFIX + key for key in (*delegation.enums(), "path", "mode")
        }


def test_incus() -> None:
    assert annotations("incus", INCUS) == {
        "io.bpffs.delegate_cmds": "map_create:obj_get:link_create",
        "io.bpffs.delegate_maps": "hash:array",
        "io.bpffs.delegate_progs": "socket_filter",
        "io.bpffs.delegate_attachs": "any",
        "io.bpffs.path": "/run/bpf",
    }
    notes = convert("incus", "kubernetes", INCUS).stderr
    assert "note: c1: the bpffs that Incus mounts is owned by nobody and has the mode 1777" in notes
    assert "note: c1: delegate_progs-without-prog_load: " in notes
    listed = yaml.safe_dump([{"name": "a", "config": {}, "expanded_config": {}}, *[_data(INCUS)]])
    assert annotations("incus", listed)["io.bpffs.delegate_progs"] == "socket_filter"


def _data(text: str) -> object:
    return yaml.safe_load(text)


def test_lxd() -> None:
    assert annotations("lxd", LXD)["io.bpffs.delegate_cmds"] == "prog_load:map_create"
    off = LXD.replace('"true"', '"false"')
    assert "without security.delegate_bpf=true" in convert("lxd", "annotations", off).stderr
    elsewhere = "io.bpffs.delegate_cmds=any\nio.bpffs.path=/run/bpf\n"
    done = convert("annotations", "lxd", elsewhere)
    assert (
        "note: container: LXD mounts the bpffs only at /sys/fs/bpf, and not at /run/bpf\n"
        in done.stderr
    )
    assert yaml.safe_load(done.stdout)["config"] == {
        "security.delegate_bpf": "true",
        "security.delegate_bpf.cmd_types": "any",
    }


def test_systemd() -> None:
    done = convert("systemd", "annotations", SYSTEMD)
    assert done.stdout == (
        "io.bpffs.delegate_cmds=map_create:prog_load:btf_load\n"
        "io.bpffs.delegate_maps=cpumap\n"
        "io.bpffs.delegate_progs=netfilter\n"
        "io.bpffs.delegate_attachs=netfilter\n"
    )
    assert "take BPFProgTypeNetfilter for the program type syscall" in done.stderr
    off = SYSTEMD.replace("PrivateBPF=yes\n", "")
    assert "without PrivateBPF=yes" in convert("systemd", "annotations", off).stderr
    back = convert("annotations", "systemd", done.stdout)
    assert "BPFDelegateCommands=BPFMapCreate,BPFProgLoad,BPFBtfLoad\n" in back.stdout
    assert "BPFDelegatePrograms=BPFProgTypeNetfilter\n" in back.stdout
    assert "BPFProgTypeNetfilter for the program type syscall" in back.stderr
    syscall = convert("annotations", "systemd", "io.bpffs.delegate_progs=syscall\n")
    assert "systemd 258 and later don't know BPFProgTypeSyscall" in syscall.stderr


def test_what_systemd_makes_of_it(tmp_path: Path) -> None:
    done = convert(
        "annotations", "systemd", "io.bpffs.delegate_cmds=any\nio.bpffs.delegate_progs=xdp\n"
    )
    unit = tmp_path / "probe.service"
    unit.write_text(f"{done.stdout}ExecStart=/bin/true\n")
    assert shutil.which("systemd-analyze")
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    lines = [line for line in said.stderr.splitlines() if str(unit) in line]
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, check=True)
    if int(version.stdout.split()[1]) >= 258:
        assert lines == []
        # What is said of it is so: it has no name for this type, and another in its place (as 262).
        (core,) = Path("/usr/lib").glob("**/systemd/libsystemd-core-*.so")
        assert b"BPFProgTypeNetfilter" in core.read_bytes()
        assert b"BPFProgTypeSyscall" not in core.read_bytes()
        return
    # Debian 12's doesn't know these keys: only that it can read every line is shown here.
    keys = [line.partition("=")[0] for line in done.stdout.splitlines()[1:]]
    new = [key for key in keys if "BPF" in key or key == "DelegateNamespaces"]
    assert len(lines) == len(new)
    for line, key in zip(lines, new, strict=True):
        assert "Unknown key" in line
        assert f"'{key}'" in line


def test_kubernetes_has_what_a_container_needs() -> None:
    done = convert("annotations", "kubernetes", "io.bpffs.delegate_progs=xdp:kprobe\n")
    pod = yaml.safe_load(done.stdout)
    assert pod["spec"]["hostUsers"] is False
    capabilities = pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]
    assert capabilities == ["BPF", "NET_ADMIN", "PERFMON"]
    assert "IMAGE stands for the image" in done.stderr
    again = command("check", "--file", "-", stdin=done.stdout)
    assert "warning: nothing" not in again.stdout


def test_podman_is_a_line_for_a_shell() -> None:
    text = "io.bpffs.delegate_cmds=any\nio.bpffs.path=/a b/$HOME/'c\"\n"
    done = convert("annotations", "podman", text)
    command_line = done.stdout.replace("podman run", "printf '%s\\n'")
    shell = subprocess.run(["sh", "-c", command_line], capture_output=True, text=True, check=True)
    assert "io.bpffs.path=/a b/$HOME/'c\"\n" in shell.stdout


def test_names_instead_of_all_else() -> None:
    text = (
        "io.bpffs.delegate_cmds=any,!obj_pin\nio.bpffs.delegate_maps=0x8000000000000006\n"
        "io.bpffs.delegate_progs=0x8000000000000000\nio.bpffs.on_unknown=drop\nio.bpffs.mode=0700\n"
    )
    done = convert("annotations", "incus", text)
    config = yaml.safe_load(done.stdout)["config"]
    assert "obj_pin" not in config["security.bpffs.delegate_cmds"].split(",")
    assert config["security.bpffs.delegate_maps"] == "hash,array"
    assert "security.bpffs.delegate_progs" not in config
    for words in (
        "delegate_maps: the bits 0x8000000000000000 have no names and are left out",
        "delegate_cmds: the bits 0x",
        "Incus can't set the mode 0700",
        "Incus can't drop names",
    ):
        assert words in done.stderr


def test_a_profile_is_written_out(tmp_path: Path) -> None:
    from tests.support.policy import in_force

    with in_force(None):
        done = convert("annotations", "systemd", "io.bpffs.profile=sk-lookup\n")
    assert "BPFDelegatePrograms=BPFProgTypeSocketFilter,BPFProgTypeSkLookup\n" in done.stdout
    assert "the profile sk-lookup is written out" in done.stderr


def test_a_name_cant_add_a_line() -> None:
    hostile = yaml.safe_dump({"name": "a\nUser=0", "config": _data(INCUS)["config"]})  # type: ignore[index]
    assert "\nUser=0" not in convert("incus", "quadlet", hostile).stdout
    pod = json.loads(json.dumps(yaml.safe_load(POD)))
    pod["spec"]["containers"] = [{"name": "b\nc", "image": "x\nUser=0"}]
    pod["spec"].pop("initContainers")
    done = convert("kubernetes", "quadlet", json.dumps(pod))
    assert "\nUser=0" not in done.stdout
    assert "ContainerName=b-c\n" in done.stdout


@pytest.mark.parametrize(
    ("source", "text", "code"),
    [
        ("annotations", "", USAGE),
        ("annotations", "nonsense", USAGE),
        ("annotations", '{"a": 1}', USAGE),
        ("annotations", "{", USAGE),
        ("annotations", "io.bpffs.delegate_cmds=5", BAD_ANNOTATION),
        ("annotations", "io.bpffs.delegate_cmds=nonsense", UNKNOWN_NAME),
        ("incus", "a: [", USAGE),
        ("incus", "a: b", USAGE),
        ("incus", "- 1", USAGE),
        ("podman", "podman 'run", USAGE),
        ("systemd", "[Service]\nnonsense", USAGE),
        ("quadlet", "[Container]\nnonsense", USAGE),
        ("kubernetes", "a: b", USAGE),
    ],
)
def test_what_cant_be_converted(source: str, text: str, code: int) -> None:
    done = convert(source, "systemd", text)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("oci-bpf-hook: ")


# ---- there and back

ENUMS = delegation.enums()


def _list(option: str) -> st.SearchStrategy[tuple[str, ...]]:
    names = st.sampled_from(sorted(ENUMS[option].values))
    taken = names.map("!{}".format)
    hexadecimal = st.integers(0, ALL_BITS).map("{:#x}".format)
    given_first = st.lists(names | hexadecimal | st.just("any"), min_size=1, max_size=6)
    return st.tuples(given_first, st.lists(taken, max_size=3)).map(
        lambda both: tuple(dict.fromkeys([*both[0], *both[1]]))
    )


PATHS = st.lists(
    st.text(st.characters(exclude_characters="/", exclude_categories=("C", "Z")), min_size=1)
    .filter(lambda part: part not in (".", ".."))
    .map(lambda part: part.replace("x", " x")),
    min_size=1,
    max_size=3,
).map(lambda parts: "/" + "/".join(parts))
REQUESTS = st.builds(
    lambda lists, path, mode, drop, shim: Request(
        lists=lists, profiles=(), record="", path=path, mode=mode, drop_unknown=drop, shim=shim
    ),
    st.fixed_dictionaries(
        {"delegate_cmds": _list("delegate_cmds")},
        optional={kind.option: _list(kind.option) for kind in KINDS[1:]},
    ),
    PATHS | st.just("/sys/fs/bpf"),
    st.integers(0, 0o7777),
    st.booleans(),
    st.booleans(),
)
NAMES = st.text(min_size=1, max_size=8)


def there_and_back(target: str, request: Request, name: str) -> Request:
    given_one = Delegation(name=name, image="registry.example/x:1", request=request)
    text = _WRITERS[target](given_one, {}).text
    (found,) = _READERS[target](text.encode(), "x.yaml" if target != "quadlet" else "x.container")
    read = parse(found.annotations, lambda: None)
    assert read is not None
    if target in ("kubernetes", "quadlet"):
        assert found.image == "registry.example/x:1"
    return read


@pytest.mark.parametrize("target", ["kubernetes", "quadlet", "podman", "annotations"])
@settings(deadline=None)
@given(request_=REQUESTS, name=NAMES)
def test_our_own_words_come_back_as_they_were(target: str, request_: Request, name: str) -> None:
    if target == "annotations" and request_.path != request_.path.strip():
        return
    back = there_and_back(target, request_, name)
    assert back == request_


@pytest.mark.parametrize("target", ["incus", "lxd", "systemd"])
@settings(deadline=None)
@given(request_=REQUESTS, name=NAMES)
def test_their_words_mean_the_same(target: str, request_: Request, name: str) -> None:
    masks = delegation.masks(request_, {})
    named = {
        option: mask if mask == ALL_BITS else mask & ENUMS[option].known
        for option, mask in masks.items()
    }
    if not any(named.values()):
        return
    back = there_and_back(target, request_, name)
    assert delegation.masks(back, {}) == {option: mask for option, mask in named.items() if mask}
    if target == "incus":
        assert back.path == request_.path


def test_what_is_lost_of_a_quadlet_unit() -> None:
    unit = (
        "[Unit]\nAfter=x.service\n[Container]\nImage=a\nAnnotation=io.bpffs.delegate_cmds=any\n"
        "Network=host\nVolume=/a:/b\nVolume=/c:/d\nUserNS=auto\nAddCapability=BPF\n"
    )
    done = convert("quadlet", "podman", unit)
    assert "note: container: [Unit], Network=, Volume=: not converted; add" in done.stderr
    less = "\n".join(line for line in unit.splitlines()[2:] if line[:3] not in ("Net", "Vol"))
    assert "not converted" not in convert("quadlet", "podman", less).stderr


@pytest.mark.parametrize("target", ["kubernetes", "podman", "quadlet"])
def test_a_capability_that_the_result_has_need_not_be_added(target: str) -> None:
    line = "podman run --annotation io.bpffs.delegate_progs=xdp image\n"
    said = convert("podman", target, line).stderr
    assert (
        "CAP_BPF to this container, and without it no token can be made; the result adds it" in said
    )
    assert "add the capability" not in said
    left = convert("podman", "annotations", line).stderr
    assert "add the capability BPF" in left
    assert "add the capability NET_ADMIN" in left


@pytest.mark.parametrize(
    ("source", "expected"),
    [("quadlet", "[Container]"), ("systemd", "[Service]"), ("annotations", "KEY=VALUE")],
)
def test_another_format_is_named_once(source: str, expected: str) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata:\n- x\n"
    done = convert(source, "podman", text)
    assert done.returncode == USAGE
    (line,) = done.stderr.splitlines()
    assert line.startswith("oci-bpf-hook: standard input isn't ")
    assert expected in line


def test_systemds_names() -> None:
    done = convert("annotations", "systemd", "io.bpffs.delegate_attachs=cgroup_inet4_bind:xdp\n")
    assert "\nBPFDelegateAttachments=BPFCgroupInet4Bind,BPFXdp\n" in done.stdout


def test_a_recording_is_only_ours() -> None:
    done = convert("annotations", "incus", "io.bpffs.record=learn\n")
    assert "security.bpffs" not in done.stdout
    assert "Incus records nothing; convert the result of the recording instead" in done.stderr
    done = convert("annotations", "podman", "io.bpffs.record=learn\n")
    for capability in ("BPF", "NET_ADMIN", "PERFMON"):
        assert f"--cap-add {capability} " in done.stdout
    assert "--annotation io.bpffs.record=learn " in done.stdout

"""lint, check and explain: what they say of a container that lacks something, and agree about."""

import json
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.bpf import attaching
from oci_bpf_hook.errors import BAD_ANNOTATION, DONE, NO_USER_NAMESPACE, REFUSED, UNKNOWN_NAME
from tests.support.command import answer, command
from tests.support.containers import FORMATS, Write, compose, config, pod, quadlet
from tests.support.policy import UNCONFINED, in_force
from tests.support.scratch import LAUNCHER, install

PROFILE, PATH = "io.bpffs.profile", "io.bpffs.path"
ELSEWHERE = {PROFILE: "xdp", PATH: "/run/bpf"}
LISTS = {
    "io.bpffs.delegate_cmds": "map_create:prog_load:btf_load",
    "io.bpffs.delegate_maps": "hash",
    "io.bpffs.delegate_progs": "socket_filter:kprobe",
    "io.bpffs.delegate_attachs": "cgroup_inet_ingress",
}
BOTH = pytest.mark.parametrize("name", ["check", "lint"])
EACH = pytest.mark.parametrize(("file", "write"), FORMATS.values(), ids=FORMATS)


def said(name: str, path: Path, *more: str) -> list[str]:
    """The codes of all doubts but those about a delegation that reaches beyond the container."""
    _, found = answer(name, "--file", path, *more)
    doubts = found if name == "lint" else found["containers"][0]["findings"]
    key = "code" if name == "lint" else "lint"
    return [one[key] for one in doubts if one[key] != "reaches-beyond"]


@BOTH
@EACH
def test_a_second_capability(tmp_path: Path, name: str, file: str, write: Write) -> None:
    path = tmp_path / file
    with in_force(UNCONFINED):
        path.write_text(write({PROFILE: "xdp"}, capabilities=["BPF"]))
        assert said(name, path) == ["cap-net-admin"]
        done = command(name, "--file", path)
        assert done.returncode == DONE
        assert f"{path}:" in done.stdout
        assert "warning: cap-net-admin: xdp, devmap, xskmap, devmap_hash: the kernel" in done.stdout
        path.write_text(write({PROFILE: "xdp"}, capabilities=["BPF", "NET_ADMIN"]))
        assert said(name, path) == []
    # The types of the grant count, whatever they are called.
    path.write_text(write(LISTS, capabilities=["BPF"]))
    assert said(name, path) == ["cap-perfmon", "perf-attach"]


def test_explain_says_it_too(tmp_path: Path) -> None:
    path = tmp_path / "c.container"
    path.write_text(quadlet(ELSEWHERE, capabilities=["BPF"], volumes={"/run/bpf": "/sys/fs/bpf"}))
    with in_force(UNCONFINED):
        _, found = answer("explain", "--file", path)
    codes = [one["lint"] for one in found["containers"][0]["findings"]]
    assert codes[:3] == ["cap-net-admin", "token-path", "hidden-volume"]


def test_explain_of_a_state_and_its_configuration(tmp_path: Path) -> None:
    """The state says nothing of capabilities, and the configuration does."""
    state, path = tmp_path / "state.json", tmp_path / "config.json"
    asked = {PROFILE: "xdp"}
    state.write_text(
        json.dumps(
            {"id": "c", "pid": 7, "status": "created", "bundle": "/gone", "annotations": asked}
        )
    )
    path.write_text(config(asked, capabilities=["BPF"]))
    with in_force(UNCONFINED):
        done = command("explain", "--state", state, "--config", path)
    assert "\nwarning: cap-net-admin: xdp, " in done.stdout


@BOTH
@EACH
def test_at_another_path(tmp_path: Path, name: str, file: str, write: Write) -> None:
    path = tmp_path / file
    own = {"capabilities": ["BPF", "NET_ADMIN"]}
    with in_force(UNCONFINED):
        path.write_text(write(ELSEWHERE, **own))
        assert said(name, path) == ["token-path"]
        # It stands at the annotation.
        line = (
            path.read_text()
            .splitlines()
            .index(next(line for line in path.read_text().splitlines() if PATH in line))
        )
        assert f"{path}:{line + 1}:" in command(name, "--file", path).stdout
        path.write_text(write(ELSEWHERE, environment={"LIBBPF_BPF_TOKEN_PATH": "/run/bpf"}, **own))
        assert said(name, path) == []
        path.write_text(write({PROFILE: "xdp"}, volumes={"/sys/fs/bpf": "/sys/fs/bpf"}, **own))
        assert said(name, path) == ["hidden-volume"]


@BOTH
def test_a_request_without_a_container(name: str) -> None:
    """Nobody says what is in the environment; so it is a hint, on which --strict doesn't fail."""
    asked = ["--annotation", "io.bpffs.delegate_cmds=map_create"]
    asked += ["--annotation", "io.bpffs.delegate_maps=hash"]
    done = command(name, "--strict", *asked, "--annotation", f"{PATH}=/run/bpf")
    assert done.returncode == DONE
    assert "set LIBBPF_BPF_TOKEN_PATH=/run/bpf in the container's environment" in done.stdout
    assert "TOKEN_PATH" not in command(name, *asked).stdout
    done = command(name, *asked, "--annotation", f"{PATH}=/sys/fs/bpf")
    assert "TOKEN_PATH" not in done.stdout


@pytest.mark.parametrize("name", ["check", "explain", "lint"])
def test_a_second_capability_without_a_container(name: str) -> None:
    """As of podman's command line, of which only the annotations are told."""
    asked = ("--annotation", f"{PROFILE}=xdp")
    said = (
        "xdp, devmap, xskmap, devmap_hash: the kernel makes these only with CAP_NET_ADMIN besides"
    )
    with in_force(UNCONFINED):
        assert f"{said} CAP_BPF; add the capability NET_ADMIN" in command(name, *asked).stdout
        done = command(name, "--annotation", f"{PROFILE}=socket-filter")
        assert "add the capability" not in done.stdout
    # Of what is refused nobody needs to know it.
    with in_force("version: 1\nrules: []\nprofiles: {xdp: {delegate_progs: [xdp]}}\n"):
        assert ("NET_ADMIN" in command(name, *asked).stdout) is (name == "lint")


def test_a_device_sets_the_variable() -> None:
    asked = ("--annotation", f"{PROFILE}=xdp", "--annotation", f"{PATH}=/run/bpf")
    with in_force(UNCONFINED):
        assert "TOKEN_PATH" in command("check", *asked).stdout
        assert "TOKEN_PATH" not in command("check", *asked, "--attr", "cdi=xdp").stdout


@BOTH
def test_where_precreate_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """podman runs the hook at precreate on this host, so its containers lack none of that."""
    program = install(tmp_path / "installed")
    hooks = tmp_path / "precreate.d"
    hooks.mkdir()
    source = LAUNCHER.parents[1] / "contrib" / "podman" / "oci-bpf-hook-precreate.json"
    hook = json.loads(source.read_text())
    hook["hook"]["path"] = str(program)
    conf = tmp_path / "containers.conf"
    conf.write_text(f'[engine]\nhooks_dir = ["{hooks}"]\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(conf))
    volumes = {"/run/bpf": "/sys/fs/bpf"}
    unit, service = tmp_path / "c.container", tmp_path / "compose.yaml"
    unit.write_text(quadlet(ELSEWHERE, volumes=volumes))
    service.write_text(compose(ELSEWHERE, user=1000))
    lacking = ["cap-bpf", "cap-net-admin", "token-path", "hidden-volume"]
    asked = ("--annotation", f"{PROFILE}=xdp", "--annotation", f"{PATH}=/run/bpf")
    with in_force(UNCONFINED):
        assert said(name, unit) == lacking
        (hooks / "oci-bpf-hook-precreate.json").write_text(json.dumps(hook))
        assert said(name, unit) == ["hidden-volume"]
        # Of another engine's containers that isn't so.
        assert said(name, service, "--engine", "podman") == []
        assert "ambient" in said(name, service)
        assert "TOKEN_PATH" not in command(name, *asked, "--engine", "podman").stdout
        assert "TOKEN_PATH" in command(name, *asked).stdout
        program.unlink()
        assert said(name, unit) == lacking


@BOTH
@pytest.mark.parametrize("key", ["hostPID", "hostIPC", "hostNetwork"])
def test_pods_that_kubernetes_refuses(tmp_path: Path, name: str, key: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod(LISTS, capabilities=["BPF", "PERFMON"], spec={key: True}))
    done = command(name, "--file", path)
    assert f"warning: Kubernetes refuses a pod with hostUsers: false and {key}: true" in done.stdout
    # Whoever doesn't ask isn't told.
    path.write_text(pod({}, spec={key: True}))
    assert "refuses a pod" not in command(name, "--file", path).stdout


@BOTH
def test_cri_o(tmp_path: Path, name: str) -> None:
    path = tmp_path / "pod.yaml"
    asked = {PROFILE: "socket-filter", "io.kubernetes.cri-o.userns-mode": "auto"}
    path.write_text(pod(asked, capabilities=["BPF"], spec={"hostUsers": None}))
    with in_force(UNCONFINED):
        assert said(name, path, "--engine", "cri-o") == []
        assert said(name, path) == ["user-namespace"]


@pytest.mark.parametrize("name", ["check", "lint", "explain"])
def test_programs_that_cant_be_attached(name: str) -> None:
    done = command(name, *(f"--annotation={key}={text}" for key, text in LISTS.items()))
    assert f"perf-attach: delegate_progs: {attaching.perf_attach(['kprobe'])}" in done.stdout


def test_the_policy_grants_programs_that_cant_be_attached(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nrules:\n- name: own\n  allow: {confined: false, delegate_cmds: [prog_load],"
        " delegate_progs: [kprobe], delegate_attachs: [cgroup_inet_ingress]}\n"
    )
    done = command("policy", "check", path)
    assert f"rule own: perf-attach: delegate_progs: {attaching.perf_attach(['kprobe'])}" in (
        done.stdout
    )


# ---- the same exit code


@pytest.mark.parametrize(
    ("annotations", "linux", "code"),
    [
        ({"a": "b"}, {}, DONE),
        ({"io.bpffs.delegate_cmds": ""}, {}, DONE),
        ({"io.bpffs.delegate_attachs": "trace_fsession", "io.bpffs.on_unknown": "drop"}, {}, DONE),
        ({"io.bpffs.delegate_cmds": "map_create"}, {}, DONE),
        ({"io.bpffs.delegate_cmds": "prog_lod"}, {}, UNKNOWN_NAME),
        ({"io.bpffs.nonsense": "x", "io.bpffs.delegate_cmds": "prog_lod"}, {}, BAD_ANNOTATION),
        ({"io.bpffs.delegate_cmds/c": "map_create"}, {}, BAD_ANNOTATION),
        ({"io.bpffs.delegate_cmds": "map_create"}, {"namespaces": []}, NO_USER_NAMESPACE),
        ({"a": "b"}, {"namespaces": []}, DONE),
    ],
)
def test_the_same_exit_code(
    tmp_path: Path, annotations: dict[str, str], linux: dict[str, Any], code: int
) -> None:
    state, path = tmp_path / "state.json", tmp_path / "config.json"
    state.write_text(
        json.dumps({"id": "c", "pid": 7, "status": "created", "bundle": "/b", "root": "/b/r"})
    )
    asked = json.loads(config(annotations, capabilities=["BPF"]))
    asked["linux"] |= linux
    path.write_text(json.dumps(asked))
    state.write_text(json.dumps({**json.loads(state.read_text()), "annotations": annotations}))
    for name in ("check", "explain", "lint"):
        assert command(name, "--file", path).returncode == code, name
        if not linux:
            assert command(name, "--state", state).returncode == code, name
            assert command(name, "--file", "-", stdin=state.read_text()).returncode == code, name


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(pod({"io.bpffs.nonsense": "x", "io.bpffs.delegate_cmds": "prog_lod"}))
    done = command("lint", "--file", path)
    assert (done.returncode, done.stdout) == (BAD_ANNOTATION, "")
    assert done.stderr.count(f"{path}:") == 2
    assert 'did you mean "prog_load"' in done.stderr


def test_strict(tmp_path: Path) -> None:
    path = tmp_path / "c.container"
    fine = {"io.bpffs.delegate_cmds": "map_create", "io.bpffs.delegate_maps": "hash"}
    path.write_text(quadlet(fine, capabilities=["BPF"]))
    for name in ("check", "lint"):
        assert command(name, "--strict", "--file", path).returncode == DONE
    path.write_text(quadlet(fine))
    for name in ("check", "lint"):
        assert command(name, "--strict", "--file", path).returncode == REFUSED


def test_json_of_a_doubt_about_the_file(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(
        "services:\n  c:\n    cap_add: [BPF]\n    annotations: {io.bpffs.delegate_cmds: map_create,"
        " io.bpffs.delegate_maps: hash}\n"
    )
    code, (one,) = answer("lint", "--file", path)
    assert (code, one["code"], one["option"], one["line"]) == (DONE, "file", None, 2)
    assert one["reason"].startswith("nothing gives this container a user namespace")
    assert "add userns_mode: auto (podman)" in one["reason"]
    assert one["fix"] == ""


# ---- convert


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("podman", "podman run --userns=auto --cap-add BPF{more} --annotation {asked} IMAGE\n"),
        ("quadlet", "[Container]\nUserNS=auto\nAddCapability=BPF{more}\nAnnotation={asked}\n"),
    ],
)
def test_convert_says_it_of_its_source(source: str, text: str) -> None:
    asked = f"{PROFILE}=xdp"
    call = ("convert", "--from", source, "--to", "kubernetes")
    with in_force(UNCONFINED):
        done = command(*call, stdin=text.format(asked=asked, more=""))
        assert "the kernel makes these only with CAP_NET_ADMIN besides CAP_BPF" in done.stderr
        more = ",NET_ADMIN" if source == "podman" else " NET_ADMIN"
        done = command(*call, stdin=text.format(asked=asked, more=more))
    assert (done.returncode, "CAP_NET_ADMIN" in done.stderr) == (DONE, False)

"""units.py: Quadlet's units with their drop-ins, pods and manifests, by name or by content."""

import contextlib
import os
import time
from pathlib import Path

import pytest

from oci_bpf_hook.cli.options.beside import Directory
from oci_bpf_hook.errors import USAGE, HookError
from oci_bpf_hook.formats.container import Asker
from oci_bpf_hook.formats.containers import read_all
from oci_bpf_hook.formats.content import Content, located
from oci_bpf_hook.text.places import Fault
from tests.formats.test_containers import POD, QUADLET

UNIT = """\
[Container]
Image=agent
AddCapability=BPF
Annotation=io.bpffs.delegate_cmds=map_create
"""
CMDS = "io.bpffs.delegate_cmds"
MAPS = "io.bpffs.delegate_maps"


def read(directory: Path, name: str) -> Content:
    path = directory / name
    return read_all(path.read_bytes(), str(path), Directory(str(path)))


def only(directory: Path, name: str) -> Asker:
    (found,) = read(directory, name).askers
    return found


def write(directory: Path, **files: str) -> None:
    """Write files; two underscores stand for a slash, and the others for dots and dashes."""
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def texts(faults: tuple[Fault, ...]) -> str:
    return "\n".join(one.text for one in faults)


@pytest.mark.parametrize("start", ["", "\n# why\n; and why\n\n", "\ufeff", "[Unit]\nAfter=x\n"])
def test_a_unit_on_standard_input(start: str) -> None:
    """It has no name; the first section's head says what it is."""
    (one,) = read_all((start + QUADLET).encode(), "standard input").askers
    assert one.annotations[CMDS] == "map_create,prog_load"
    (one,) = read_all((start + UNIT).encode(), "standard input").askers
    assert one.name == "container without a name"
    assert "UserNS=auto" in texts(one.lacks)


# ---- a pod


def test_a_pod_has_the_user_namespace(tmp_path: Path) -> None:
    write(tmp_path, web_container=f"{UNIT}Pod=x.pod\n", web2_container=f"{UNIT}Pod=y.pod\n")
    (lack,) = only(tmp_path, "web.container").lacks
    assert "put UserNS=auto into the section [Pod] of x.pod" in lack.text
    assert "add UserNS" not in lack.text
    assert lack.line == 5
    write(tmp_path, x_pod="[Pod]\nUserNS=auto\n", y_pod="[Pod]\nPodName=y\n")
    found = only(tmp_path, "web.container")
    assert (found.user_namespace, found.lacks, found.doubts) == (True, (), ())
    assert "the section [Pod] of y.pod" in texts(only(tmp_path, "web2.container").lacks)
    write(tmp_path, y_pod_d__a_conf="[Pod]\nUserNS=keep-id\n")
    assert only(tmp_path, "web2.container").user_namespace is True


@pytest.mark.parametrize("setting", ["UserNS=auto", "UIDMap=0:1:2"])
def test_what_podman_refuses_beside_a_pod(setting: str, tmp_path: Path) -> None:
    write(tmp_path, web_container=f"{UNIT}Pod=x.pod\n{setting}\n")
    found = only(tmp_path, "web.container")
    (doubt,) = found.doubts
    key = setting.partition("=")[0]
    assert doubt.text.startswith(f"podman refuses {key}= beside Pod=x.pod")
    assert (doubt.line, found.user_namespace, found.lacks) == (6, None, ())


def test_a_pod_by_itself(tmp_path: Path) -> None:
    write(tmp_path, web_pod="[Pod]\nUserNS=auto\nPodmanArgs=--label io.bpffs.profile=xdp\n")
    found = read(tmp_path, "web.pod")
    assert found.others == ("pod web, whose containers are the *.container files with Pod=web.pod",)
    (one,) = found.askers
    assert (one.doubts[0].line, one.asks()) == (3, False)
    assert "put it under Annotation=" in one.doubts[0].text
    found = read_all(b"[Pod]\nUserNS=auto\n", "standard input")
    assert (found.askers, len(found.others)) == ((), 1)


# ---- labels


@pytest.mark.parametrize(
    "line",
    [
        "Label=a=b io.bpffs.profile=xdp",
        "PodmanArgs=--label io.bpffs.profile=xdp",
        "PodmanArgs=--label=io.bpffs.profile=xdp -q",
        "PodmanArgs=-l io.bpffs.profile=xdp",
    ],
)
def test_a_label_is_no_annotation(line: str) -> None:
    (one,) = read_all(f"[Container]\nImage=x\n{line}\n".encode(), "x.container").askers
    (doubt,) = one.doubts
    assert doubt.text == "io.bpffs.profile is a label here; put it under Annotation="
    assert (doubt.line, one.asks()) == (3, False)


# ---- drop-ins


def test_drop_ins(tmp_path: Path) -> None:
    """They come after the unit in the order of their names, the nearest directory first."""
    write(
        tmp_path,
        **{
            "web-a_container": f"{UNIT}# the end \\",
            "web-a_container_d__20_conf": f"[Container]\nAnnotation={MAPS}=hash\n",
            "web-a_container_d__30_conf": f"[Container]\nAnnotation={MAPS}=array\nUserNS=auto\n",
            "web-_container_d__10_conf": "[Container]\nUserNS=host\nContainerName=ten\n",
            "web-_container_d__20_conf": "[Container]\nAnnotation=io.bpffs.path=/not/taken\n",
            "container_d__99_conf": "Annotation=io.bpffs.path=/in/no/section\n",
            "web-a_container_d__note_txt": "nonsense\n",
        },
    )
    found = read(tmp_path, "web-a.container")
    (one,) = found.askers
    assert one.annotations == {CMDS: "map_create", MAPS: "array"}
    assert (one.name, one.user_namespace, one.lacks) == ("container ten", True, ())
    name, spot = located(found.parts, one.where[MAPS])
    assert Path(name).relative_to(tmp_path) == Path("web-a.container.d/30.conf")
    assert (spot.line, spot.column) == (2, 12)
    name, spot = located(found.parts, one.where[CMDS])
    assert (Path(name).name, spot.line) == ("web-a.container", 4)
    assert found.text.split("\n")[one.where[MAPS].line - 1] == f"Annotation={MAPS}=array"


def test_a_drop_in_takes_back_what_the_unit_says(tmp_path: Path) -> None:
    write(
        tmp_path,
        web_container=f"{UNIT}UserNS=auto\n",
        web_container_d__a_conf="[Container]\nAnnotation=\nAddCapability=\nUserNS=\n",
    )
    found = only(tmp_path, "web.container")
    assert found.annotations == {}
    assert found.means
    assert not found.means.adds("BPF", None)
    assert "UserNS=auto" in texts(found.lacks)


def test_a_drop_in_alone(tmp_path: Path) -> None:
    """It doesn't say what the container lacks, and isn't its own drop-in."""
    write(tmp_path, web_container_d__a_conf=f"[Container]\nAnnotation={MAPS}=hash\n")
    found = only(tmp_path, "web.container.d/a.conf")
    assert (found.name, found.annotations, found.lacks) == ("container web", {MAPS: "hash"}, ())
    write(tmp_path, container_d__a_conf="[Service]\nRestart=no\n")
    assert not only(tmp_path, "container.d/a.conf").asks()


def test_what_is_wrong_in_a_drop_in(tmp_path: Path) -> None:
    write(tmp_path, web_container=UNIT, web_container_d__a_conf="[Container]\n\nnonsense\n")
    with pytest.raises(HookError) as caught:
        read(tmp_path, "web.container")
    path = tmp_path / "web.container.d" / "a.conf"
    assert caught.value.sentences == (f'{path}:3:1: "nonsense" should be KEY=VALUE',)


def test_a_template_has_drop_ins_for_its_instances(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "web@1_container": UNIT,
            "web@_container_d__a_conf": "[Container]\nUserNS=auto\n",
        },
    )
    assert only(tmp_path, "web@1.container").user_namespace is True


# ---- manifests


def test_a_kube_unit(tmp_path: Path) -> None:
    pod = POD.replace("  hostUsers: false\n", "")
    write(tmp_path, web_kube="[Kube]\nYaml=pod.yaml\nUserNS=auto\n", pod_yaml=pod)
    found = read(tmp_path, "web.kube")
    first, probe = found.askers
    assert probe.name == "Pod web-0, container probe"
    assert (first.user_namespace, probe.user_namespace, probe.lacks) == (True, True, ())
    name, spot = located(found.parts, probe.where[CMDS])
    assert (name, spot.line) == (str(tmp_path / "pod.yaml"), 7)
    write(tmp_path, web_kube=f"[Kube]\nYaml={tmp_path}/pod.yaml\n")
    assert "UserNS=auto into its *.kube" in texts(read(tmp_path, "web.kube").askers[0].lacks)


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("[Kube]\nYaml=none.yaml\n", "x.kube", "it isn't there; check the manifest"),
        ("[Kube]\nYaml=none.yaml\n", "standard input", "nobody knows where it is"),
        ("[Kube]\nLogDriver=none\n", "x.kube", "has no Yaml="),
        ("[Service]\nExecStart=x\n", "x.container", "without a section [Container]"),
        ("[Service]\nExecStart=x\n", "x.service", "without a section [Container], [Pod] or [Kube]"),
        ("[Service]\nPrivateBPF=yes\n", "standard input", "convert --from systemd"),
    ],
)
def test_units_that_describe_no_container(text: str, name: str, what: str) -> None:
    with pytest.raises(HookError) as caught:
        read_all(text.encode(), name)
    assert caught.value.code == USAGE
    assert what in caught.value.sentences[0]


@pytest.mark.parametrize("kind", ["volume", "network", "image", "build"])
def test_units_that_make_something_else(kind: str) -> None:
    found = read_all(f"[{kind.title()}]\nUser=0\n".encode(), f"x.{kind}")
    assert (found.askers, found.others) == ((), (f"a *.{kind} unit, which makes no container",))


def test_a_drop_in_that_is_no_file(tmp_path: Path) -> None:
    """Nobody may ever write to a FIFO, and so nothing waits for that."""
    write(tmp_path, web_container=UNIT)
    directory = tmp_path / "web.container.d"
    directory.mkdir()
    os.mkfifo(directory / "a.conf")
    (directory / "b.conf").mkdir()
    assert only(tmp_path, "web.container").annotations == {CMDS: "map_create"}


@pytest.mark.parametrize(
    ("line", "name"), [("Annotation=a=b\nLabel=\n", "x.container"), ("a: 1\n", "x.yaml")]
)
def test_the_time_grows_with_the_length(line: str, name: str) -> None:
    """Four times as many lines, of settings or of faults, don't take sixteen times as long."""

    head = "[Container]\n" if name == "x.container" else ""

    def took(count: int) -> float:
        start = time.process_time()
        with contextlib.suppress(HookError):
            read_all((head + line * count + "b: {{ x }}\n").encode(), name)
        return time.process_time() - start

    assert min(took(8000) / took(2000) for _ in range(3)) < 8

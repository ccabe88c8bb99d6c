"""Each format in check, explain and convert, from a file and from standard input."""

import json
import re
from pathlib import Path

import pytest
import yaml

from oci_bpf_hook.errors import DONE, REFUSED, USAGE
from tests.formats.test_containers import COMPOSE, POD, QUADLET, STATES
from tests.formats.test_others import CUSTOM, HELM, SERVICE
from tests.support.command import answer, command

CONFIG = (STATES / "cri-o-1.37-crun" / "createRuntime.config.json").read_text()
STATE = (STATES / "cri-o-1.37-crun" / "createRuntime.state.json").read_text()
FORMS = {
    "config.json": CONFIG,
    "state.json": STATE,
    "pod.yaml": POD,
    "pod.json": json.dumps(yaml.safe_load(POD), indent=1),
    "list.yaml": yaml.safe_dump(
        {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(POD)]}
    ),
    "several.yaml": f"{POD}---\n{SERVICE}---\n{POD}",
    "custom.yaml": CUSTOM,
    "service.yaml": SERVICE,
    "compose.yaml": COMPOSE,
    "web.container": QUADLET,
    "web.pod": "[Pod]\nUserNS=auto\n",
}


def without_name(text: str) -> str:
    """What a command prints, without the file's name and the unit's, which is taken from it."""
    text = re.sub(r"\S*(standard input|/\S+\.\w+)", "FILE", text)
    return re.sub(
        r"\b(container without a name|container web|pod web|a pod)\b|=(web)?\.pod\b", "UNIT", text
    )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("call", [("check", "--file"), ("explain", "--file")])
def test_a_file_and_standard_input(call: tuple[str, str], name: str, tmp_path: Path) -> None:
    """The answer is the same, and there is one."""
    path = tmp_path / name
    path.write_text(FORMS[name])
    from_file, from_stdin = command(*call, path), command(*call, "-", stdin=FORMS[name])
    assert from_file.returncode == from_stdin.returncode
    assert without_name(from_file.stdout) == without_name(from_stdin.stdout)
    assert from_file.stdout
    assert (from_file.stderr, from_stdin.stderr) == ("", "")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(("kubernetes", name) for name in FORMS if "state" not in name and "service" not in name),
        ("quadlet", "web.container"),
    ],
)
def test_convert(source: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FORMS[name])
    call = ("convert", "--from", source, "--to", "annotations")
    from_file, from_stdin = command(*call, path), command(*call, stdin=FORMS[name])
    assert (from_file.returncode, from_file.stdout) == (from_stdin.returncode, from_stdin.stdout)
    if name != "web.pod":
        assert "io.bpffs." in from_file.stdout


def test_convert_reads_drop_ins(tmp_path: Path) -> None:
    path = tmp_path / "web.container"
    path.write_text("[Container]\nImage=x\n")
    (tmp_path / "web.container.d").mkdir()
    (tmp_path / "web.container.d" / "a.conf").write_text(
        "[Container]\nAnnotation=io.bpffs.delegate_cmds=map_create\n"
    )
    done = command("convert", "--from", "quadlet", "--to", "annotations", path)
    assert done.stdout == "io.bpffs.delegate_cmds=map_create\n"


def test_a_finding_in_a_drop_in(tmp_path: Path) -> None:
    """It is shown with the file that it is in, in the text and in JSON."""
    path = tmp_path / "web.container"
    path.write_text("[Container]\nImage=x\nUserNS=auto\nAddCapability=BPF\n")
    drop_in = tmp_path / "web.container.d" / "a.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Container]\nAnnotation=io.bpffs.delegate_cmds=map_create,prog_lod\n")
    done = command("check", "--file", path)
    assert f"{drop_in}:2:46: problem: " in done.stdout
    _, found = answer("check", "--file", path)
    problem = found["containers"][0]["findings"][0]
    assert (problem["file"], problem["line"], problem["column"]) == (str(drop_in), 2, 46)
    assert found["file"] == str(path)


def test_a_file_that_describes_no_container() -> None:
    many = "---\n".join([SERVICE] * 40)
    for name in ("check", "explain"):
        done = command(name, "--file", "-", stdin=SERVICE)
        assert done.returncode == DONE
        assert done.stdout == "standard input describes no container: it has Service web\n"
        words = command(name, "--file", "-", stdin=many).stdout
        assert words.endswith(f" and {40 - words.count('Service')} more\n")
        empty = command(
            name, "--file", "-", stdin='{"apiVersion": "v1", "kind": "List", "items": []}'
        )
        assert empty.stdout == "standard input describes no container\n"
    assert answer("check", "--file", "-", stdin=SERVICE)[1]["containers"] == []


def test_explain_says_why_nothing_is_asked_for() -> None:
    text = SERVICE.replace("{name: web}", "{name: web, annotations: {io.bpffs.profile: xdp}}")
    found = [
        finding["text"]
        for one in answer("explain", "--file", "-", stdin=text)[1]["containers"]
        for finding in one["findings"]
    ]
    said = command("explain", "--file", "-", stdin=text).stdout
    assert found
    assert all(one in said for one in found)


def test_a_custom_resource() -> None:
    done = command("check", "--file", "-", stdin=CUSTOM)
    assert "standard input:7:5: warning: only the controller of the kind Prober" in done.stdout
    assert "Prober edge: granted by rule everything" in done.stdout
    done = command("check", "--strict", "--file", "-", stdin=CUSTOM)
    assert done.returncode == REFUSED


@pytest.mark.parametrize("text", HELM)
@pytest.mark.parametrize(
    "call",
    [
        ("check", "--file", "-"),
        ("explain", "--file", "-"),
        ("convert", "--from", "kubernetes", "--to", "podman"),
    ],
)
def test_a_template(text: str, call: tuple[str, ...]) -> None:
    done = command(*call, stdin=text)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "render it first, with helm template" in done.stderr

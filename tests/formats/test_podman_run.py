"""Command lines of podman's: read as the real one reads them."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.formats import engine_options, podman_run
from oci_bpf_hook.formats.podman_run import Arguments, CommandError, commands
from tests.cli.commands.test_convert import convert
from tests.support.podman import IMAGE, World

KEY = "io.bpffs.delegate_cmds"
_OPTION = re.compile(r" +(?:-(.), )?--([a-z0-9-]+)(?: (\S+))?(?:  |$)")


def only(text: str) -> Arguments:
    (found,) = commands(text)
    return found


def shown(*command: str) -> Iterator[tuple[str, str, bool]]:
    """The options in a program's help: short name, name, and whether it has a value."""
    text = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    for line in text.partition("Options:")[2].splitlines():
        if found := _OPTION.match(line):
            yield found[1] or "", found[2], bool(found[3])


@pytest.mark.parametrize("subcommand", ["run", "create"])
@pytest.mark.parametrize("program", ["podman", "docker"])
def test_the_options_of_this_host_s(program: str, subcommand: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} isn't installed")
    options = list(shown(program, subcommand))
    assert len(options) > 90
    for short, name, valued in options:
        assert name in (engine_options.VALUED if valued else engine_options.FLAGS), name
        assert not short or engine_options.SHORT[short] == name


def test_the_options_before_the_subcommand() -> None:
    options = list(shown("podman"))
    assert len(options) > 20
    for short, name, valued in options:
        known = engine_options.GLOBAL_VALUED if valued else engine_options.GLOBAL_FLAGS
        assert name in known, name
        assert not short or engine_options.GLOBAL_SHORT[short] == name


def test_no_option_is_both() -> None:
    assert not engine_options.FLAGS & engine_options.VALUED
    assert not engine_options.GLOBAL_FLAGS & engine_options.GLOBAL_VALUED
    assert set(engine_options.SHORT.values()) <= engine_options.FLAGS | engine_options.VALUED


@pytest.fixture(scope="module")
def bare() -> Iterator[World]:
    with World() as world:
        yield world


ANNOTATED = ("--annotation", "k=a")


@pytest.mark.parametrize(
    "words",
    [
        (*ANNOTATED, IMAGE, "true"),
        # A program's own options, however they look.
        (*ANNOTATED, IMAGE, "sh", "--annotation", "k=b", "--name", "theirs"),
        (*ANNOTATED, "--", IMAGE, "--annotation", "k=b"),
        ("-itv", "/tmp:/x", "--name=mine", *ANNOTATED, IMAGE, "true"),
        ("-ti", "-v/tmp:/x", "-e=X=1", "-eY=2", "-m=1g", *ANNOTATED, IMAGE, "true"),
        ("--rm=false", "--interactive=true", "--net", "host", *ANNOTATED, IMAGE, "true"),
        ("--log-level", "error", "--annotation=k=b", *ANNOTATED, IMAGE, "true"),
        (*ANNOTATED, "--annotation=k=b", "--annotation", "l=", IMAGE, "a", "b"),
        ("--annotation", '"k=1,2"', IMAGE, "true"),
        ("--annotation", '"k=""1"",2"', "--annotation", "l=1,m=2", IMAGE, "true"),
        ("--name", "mine", "--label", "--annotation=k=b", *ANNOTATED, IMAGE, "true"),
        ("--env", "-it", "-u", "--name=other", *ANNOTATED, IMAGE, "true", "--", "-x"),
        ("--entrypoint", "", "--network=host", "-t", *ANNOTATED, IMAGE, "true"),
    ],
)
def test_as_the_real_one(bare: World, words: tuple[str, ...]) -> None:
    made = bare.podman("create", "--pull", "never", *words).stdout.split()[-1]
    try:
        (real,) = json.loads(bare.podman("inspect", made).stdout)
    finally:
        bare.podman("rm", "--force", made)
    found = only(shlex.join(["podman", "--log-level", "error", "container", "create", *words]))
    assert found.image == IMAGE == real["ImageName"]
    assert found.command == bool(real["Config"]["Cmd"])
    assert found.name in (None, real["Name"])
    given_ones = {
        key: text
        for key, text in real["Config"]["Annotations"].items()
        if not key.startswith("io.")
    }
    assert found.annotations == given_ones
    assert found.unknown == ()


@given(st.lists(st.text(), min_size=1))
def test_words_as_a_shell_makes_them(words: list[str]) -> None:
    found = only(shlex.join(["podman", "run", "--annotation", "k=v", "image", *words]))
    assert (found.image, found.command, found.annotations) == ("image", True, {"k": "v"})
    found = only(shlex.join(["podman", "run", *(f"--label={word}" for word in words), "image"]))
    assert (found.image, found.command) == ("image", False)


@pytest.mark.parametrize(
    "text",
    [
        'a\'b c\'d "e $f\\" \\$ \\a" g\\ h i\\\nj',
        "'a\nb' \"c\nd\" e#f",
        "'' \"\" 'a'\"b\"c",
    ],
)
def test_quotes_as_a_shell_reads_them(text: str) -> None:
    script = f"f=F; printf '%s\\0' {text}"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    (words,) = podman_run._simple(text.replace("$f", "F"))
    assert words == shell.removesuffix("\0").split("\0")


def test_several_commands() -> None:
    text = (
        "$ sudo -E podman run --name a image-a  # don't mind\n"
        "X=1 /usr/bin/podman create --name b image-b sh -c 'x; podman run --name c'; echo done\n"
        "podman pull image-d && podman --remote run --name d \\\n  image-d || exit 1\n"
    )
    found = [(one.name, one.image) for one in commands(text)]
    assert found == [("a", "image-a"), ("b", "image-b"), ("d", "image-d")]


@pytest.mark.parametrize("text", ["", "# nothing", "ls -l", "podman ps", "podman kube play x.yaml"])
def test_what_runs_nothing(text: str) -> None:
    with pytest.raises(CommandError, match="this isn't a command line of podman run"):
        list(commands(text))


def test_options_alone() -> None:
    """As advise prints them."""
    found = only(f"--cap-add BPF --annotation {KEY}=any")
    assert (found.annotations, found.image) == ({KEY: "any"}, None)
    assert found.capabilities == ["BPF"]


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("", []),
        ("--userns=auto --name x", []),
        ("--network host", ["--network: not converted"]),
        (
            "--net=host -v /a:/b -it --rm",
            ["--net, --volume, --interactive, --tty, --rm: not converted"],
        ),
        ("--userns keep-id", ["--userns: not converted"]),
        ("--annotation other=1", ["--annotation: not converted"]),
        ("--cap-add BPF,SYS_PTRACE,cap_net_admin", ["--cap-add SYS_PTRACE,NET_ADMIN: not needed"]),
        ("--made-up=1", ["--made-up: not converted"]),
        ("--annotation io.bpffs.delegate_maps=hash,array", ["delegate_maps: podman 4 splits"]),
    ],
)
def test_what_is_lost_is_said(words: str, notes: list[str]) -> None:
    text = f"podman run --annotation {KEY}=prog_load {words} registry.example/x:1"
    done = convert("podman", "podman", text)
    assert done.returncode == 0
    assert done.stdout.endswith(" registry.example/x:1\n")
    assert "IMAGE" not in done.stderr
    for note in notes:
        assert note in done.stderr
    assert ("not converted" in done.stderr) == any("not converted" in note for note in notes)


@pytest.mark.parametrize(
    ("rest", "note"),
    [
        ("image sh -c x", "the command after the image isn't converted"),
        ("'$IMAGE'", 'the image "$IMAGE" isn\'t a reference to an image'),
        ("--rootfs /srv/root", "--rootfs: not converted"),
    ],
)
def test_what_stands_at_the_end(rest: str, note: str) -> None:
    done = convert("podman", "kubernetes", f"podman run --annotation {KEY}=any {rest}")
    assert note in done.stderr
    assert ("IMAGE stands for the image" in done.stderr) == ("image sh" not in rest)
    assert "the source doesn't name" not in done.stderr


def test_a_program_s_own_annotation() -> None:
    text = f"podman run --annotation {KEY}=map_create image --annotation {KEY}=any"
    assert convert("podman", "annotations", text).stdout == f"{KEY}=map_create\n"


def test_an_option_that_nobody_knows() -> None:
    """The next word may be its value, or the image."""
    done = convert("podman", "annotations", f"podman run --made-up x --annotation {KEY}=any image")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has the option --made-up; write --made-up=VALUE if it takes a value" in done.stderr

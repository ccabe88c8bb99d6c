"""manual.py: the pages as man(1) and mandoc(1) see them, that they say everything, and truly."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.cli.main import PROGRAM, _parser
from oci_bpf_hook.cli.manual import PAGES, Page
from oci_bpf_hook.cli.manual_examples import EXAMPLES
from oci_bpf_hook.cli.manual_texts import SECTIONS
from oci_bpf_hook.cli.options.table import ENTRIES, GROUPS, Entry
from oci_bpf_hook.cli.tree import choices, leaves
from oci_bpf_hook.delegation.annotations import KEYS, PREFIX
from oci_bpf_hook.errors import EXITS
from oci_bpf_hook.paths import SOCKET
from tests.support.places import ROOT

MAN = ROOT / "contrib" / "man"
FILES = (
    "oci-bpf-hook.1",
    "oci-bpf-hook-advise.1",
    "oci-bpf-hook-broker.8",
    "oci-bpf-hook-cdi.8",
    "oci-bpf-hook-check.1",
    "oci-bpf-hook-convert.1",
    "oci-bpf-hook-delegate.8",
    "oci-bpf-hook-doctor.1",
    "oci-bpf-hook-explain.1",
    "oci-bpf-hook-guard.8",
    "oci-bpf-hook-help.1",
    "oci-bpf-hook-hook.8",
    "oci-bpf-hook-inject.1",
    "oci-bpf-hook-inspect.1",
    "oci-bpf-hook-install.8",
    "oci-bpf-hook-kernel.1",
    "oci-bpf-hook-lint.1",
    "oci-bpf-hook-nri.8",
    "oci-bpf-hook-policy.1",
    "oci-bpf-hook-record.1",
    "oci-bpf-hook-seccomp.1",
    "oci-bpf-hook-uninstall.8",
    "oci-bpf-hook-policy.5",
)
# Lines of a page on a terminal of 80 columns: a page a command, so that each can be read.
LONGEST = 160
BY_NAME = {page.file: page for page in PAGES}
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)
BY_ENTRY = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def shown(page: Page, *, width: int = 200) -> str:
    """The page as somebody reads it, on a wide terminal; no complaint of groff's."""
    done = subprocess.run(
        ["man", "--warnings=w", "-E", "UTF-8", "-l", str(MAN / page.file)],
        capture_output=True,
        text=True,
        check=True,
        env={
            "MANWIDTH": str(width),
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "MANPAGER": "cat",
        },
    )
    assert done.stderr == ""
    return done.stdout


def of(entry: Entry) -> Page:
    return BY_NAME[f"{entry.page}.{entry.section}"]


def test_every_page_is_there() -> None:
    assert tuple(page.file for page in PAGES) == FILES
    assert {path.name for path in MAN.iterdir()} == set(FILES)


@BY_PAGE
def test_it_is_not_stale(page: Page) -> None:
    assert (MAN / page.file).read_text() == page.render()


@BY_PAGE
def test_lint(page: Page) -> None:
    command = ["mandoc", "-T", "lint", "-W", "style", str(MAN / page.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@BY_PAGE
def test_what_apropos_finds(page: Page) -> None:
    """lexgrog(1) is what reads the line below NAME for man(1)'s database."""
    command = ["lexgrog", str(MAN / page.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f'{MAN / page.file}: "{page.name} - {page.summary}"\n'


@BY_PAGE
def test_it_can_be_read(page: Page) -> None:
    text = shown(page, width=80)
    assert "\\" not in text
    # A file's keys are looked up, and not read from end to end.
    assert len(text.splitlines()) <= LONGEST or page.section == 5
    for name, section in re.findall(r"(oci-bpf-hook[\w-]*)\((\d)\)", text):
        assert f"{name}.{section}" in BY_NAME


def test_the_first_page_says_what_there_is() -> None:
    text = shown(PAGES[0])
    for group in GROUPS:
        assert f"\n   {group.capitalize()}: " in text
    for entry in ENTRIES:
        assert f"\n       {entry.page}({entry.section})\n" in text
    for code, meaning in EXITS.items():
        assert f"       {code:<6} {meaning}." in text
    for key in KEYS:
        assert f"       {PREFIX}{key}\n" in text
    assert "podman run --userns=auto --cap-add BPF,NET_ADMIN --annotation io." in text


@BY_ENTRY
def test_a_commands_page_says_everything(entry: Entry) -> None:
    text = shown(of(entry))
    for leaf in leaves():
        if leaf.entry is not entry:
            continue
        assert f"oci-bpf-hook {' '.join(leaf.words)}" in text
        for one in leaf.command.arguments:
            assert one.names[0] in text or str(one.settings["metavar"]) in text


def test_the_policy_page_says_who_sets_what() -> None:
    text = shown(BY_NAME["oci-bpf-hook-policy.5"])
    for words in (
        "Set by the administrator.",
        "Set by the engine under cri-o, containerd, podman.",
        "user namespace than its own.  Set by the kernel.",
        "Set by the requester.",
        'match: {namespace: monitoring, image: "registry.example/agent*"}',
    ):
        assert words in text


def test_every_argument_has_its_help() -> None:
    for leaf in leaves():
        for one in leaf.command.arguments:
            assert one.settings.get("help"), (leaf.words, one.names)


def test_every_format_of_convert_is_explained() -> None:
    (leaf,) = (one for one in leaves() if one.words == ("convert",))
    formats = SECTIONS["convert"]["FORMATS"]
    assert isinstance(formats, dict)
    explained = sorted(name for names in formats for name in names.split(", "))
    for one in leaf.command.arguments:
        assert not choices(one) or sorted(choices(one)) == explained


# ---- the examples


def examples(name: str) -> list[str]:
    """The command lines that the page of the command `name` shows."""
    return re.findall(r"^    (.*)$", EXAMPLES[name], re.MULTILINE)


def calls(line: str) -> list[list[str]]:
    """The words of each call of ours in a line of shell."""
    found = re.findall(rf"\b{PROGRAM} ([^|)<>]*)", line)
    return [shlex.split(words) for words in found]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_understood(name: str) -> None:
    """And each shows the command that the page is about, or has systemd start it."""
    assert name in (PROGRAM, *(entry.name for entry in ENTRIES))
    lines = examples(name)
    assert lines
    for line in lines:
        assert line.startswith((f"{PROGRAM} ", "podman run ", "systemctl ", "incus ")), line
        for words in calls(line):
            assert name in (PROGRAM, words[0])
            assert callable(_parser(words).parse_args(words).run), line


def test_every_page_has_an_example() -> None:
    assert {PROGRAM, *(entry.name for entry in ENTRIES)} == set(EXAMPLES)


def test_generate_docs_says_what_is_stale(tmp_path: Path) -> None:
    script = ROOT / "contrib" / "generate-docs"
    done = subprocess.run([script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    copy = tmp_path / "copy"
    trees = (ROOT / name for name in ("docs", "oci_bpf_hook", "schema"))
    subprocess.run(["cp", "-r", *trees, tmp_path], check=True)
    security = tmp_path / "docs" / "security.md"
    whole = security.read_text()
    place, end = "<!-- table: reach -->\n", "<!-- end -->"
    before, _, after = whole.partition(place)
    security.write_text(before + place + after[after.index(end) :])
    copy = tmp_path / "contrib" / "generate-docs"
    copy.parent.mkdir()
    copy.write_bytes(script.read_bytes())
    copy.chmod(0o755)
    done = subprocess.run([copy, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "contrib/man/oci-bpf-hook.1 is stale; run contrib/generate-docs\n" in done.stdout
    assert "docs/security.md is stale; run contrib/generate-docs\n" in done.stdout
    subprocess.run([copy], capture_output=True, check=True)
    assert subprocess.run([copy, "--check"], capture_output=True, check=False).returncode == 0
    assert (tmp_path / "contrib/man/oci-bpf-hook.1").read_text() == PAGES[0].render()
    assert security.read_text() == whole


def test_the_broker_page_says_everything() -> None:
    text = shown(PAGES[2])
    (leaf,) = (one for one in leaves() if one.words == ("broker",))
    for one in leaf.command.arguments:
        assert one.names[0] in text
    for words in ("SIGHUP", "LISTEN_FDS", SOCKET, "speaks for whoever made its user namespace"):
        assert words in text

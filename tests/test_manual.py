"""manual.py: the pages as man(1) and mandoc(1) see them, and that they say everything."""

import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.annotations import KEYS, PREFIX
from oci_bpf_hook.client import SOCKET
from oci_bpf_hook.commands.tree import leaves
from oci_bpf_hook.errors import EXITS
from oci_bpf_hook.manual import PAGES, Page

ROOT = Path(__file__).parents[1]
MAN = ROOT / "contrib" / "man"
FILES = ("oci-bpf-hook.1", "oci-bpf-hook-policy.5", "oci-bpf-hook-broker.8")
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)


def shown(page: Page) -> str:
    """The page as somebody reads it, on a wide terminal; no complaint of groff's."""
    done = subprocess.run(
        ["man", "--warnings=w", "-E", "UTF-8", "-l", str(MAN / page.file)],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
    )
    assert done.stderr == ""
    return done.stdout


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


def test_the_command_page_says_everything() -> None:
    text = shown(PAGES[0])
    for leaf in leaves():
        assert f"oci-bpf-hook {' '.join(leaf.words)}" in text
        for one in leaf.command.arguments:
            assert one.names[0] in text or str(one.settings["metavar"]) in text
    for code, meaning in EXITS.items():
        assert f"       {code:<6} {meaning}." in text
    for key in KEYS:
        assert f"       {PREFIX}{key}\n" in text
    assert "podman run --userns=auto --cap-add BPF,NET_ADMIN --annotation io." in text
    assert "\\" not in text


def test_the_policy_page_says_who_sets_what() -> None:
    text = shown(PAGES[1])
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

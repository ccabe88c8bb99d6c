"""cli/options/output.py: on a real terminal, through a pipe, and without rich."""

import subprocess
import sys

from oci_bpf_hook.cli.tree import Leaf, leaves
from tests.support.places import ROOT
from tests.support.terminal import on_terminal

_SAY = """
import sys
from oci_bpf_hook.cli.options.output import HEAD, OK, PROBLEM, Output, styled
out = Output()
out.line(styled(PROBLEM, "problem"), ": no CAP_BPF in ", styled(HEAD, "web"))
out.table(("NAME", "BIT"), [(styled(OK, "map_create"), "0"), ("[red]\\x1b[31mprog\\n", "12")])
print(sys.modules.get("rich") is not None)
"""
COMMAND = (sys.executable, "-c", _SAY)
PLAIN = r"""problem: no CAP_BPF in web
NAME                 BIT
map_create             0
[red]\x1b[31mprog\n   12
False
"""


def test_through_a_pipe_it_is_plain_text() -> None:
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=True)
    # The last line: rich wasn't imported.
    assert (done.stdout, done.stderr) == (PLAIN, "")


def test_on_a_terminal_it_has_colour() -> None:
    code, text = on_terminal(COMMAND)
    assert code == 0
    assert "\x1b[1;31mproblem\x1b[0m: no CAP_BPF in \x1b[1mweb\x1b[0m\n" in text
    assert "\x1b[32mmap_create" in text
    # What came from somebody's pod is neither markup nor an escape sequence.
    assert r"[red]\x1b[31mprog\n" in text
    assert text.endswith("True\n")


def test_no_color() -> None:
    _, text = on_terminal(COMMAND, env={"NO_COLOR": "1"})
    assert "\x1b[1mproblem\x1b[0m: no CAP_BPF in \x1b[1mweb\x1b[0m\n" in text
    assert "map_create" in text
    assert "\x1b[3" not in text
    _, coloured = on_terminal(COMMAND, env={"NO_COLOR": ""})
    assert "\x1b[1;31m" in coloured


def test_a_dumb_terminal_gets_text() -> None:
    assert on_terminal(COMMAND, env={"TERM": "dumb"}) == (0, PLAIN)


def test_without_rich_a_terminal_gets_text() -> None:
    without = f"import sys; sys.modules['rich'] = None{_SAY}"
    assert on_terminal((sys.executable, "-c", without)) == (0, PLAIN)


def test_a_long_line_is_whole() -> None:
    say = "from oci_bpf_hook.cli.options.output import Output; Output().line('word ' * 50)"
    _, text = on_terminal((sys.executable, "-c", say), columns=40)
    assert text == "word " * 50 + "\n"


def test_a_narrow_terminal_loses_nothing() -> None:
    say = (
        "from oci_bpf_hook.cli.options.output import Output\n"
        "Output().table(('A', 'B'), [('x' * 30, 'y' * 30)])"
    )
    _, text = on_terminal((sys.executable, "-c", say), columns=30)
    assert (text.count("x"), text.count("y")) == (30, 30)


# These print what is for a machine anyway, or nothing but which file they have changed.
NO_JSON = {
    ("broker",),
    ("help",),
    ("hook",),
    ("inject",),
    ("nri",),
    ("seccomp",),
    ("cdi", "generate"),
    ("cdi", "remove"),
}


def test_json_everywhere() -> None:
    without = {leaf.words for leaf in leaves() if "--json" not in _options(leaf)}
    assert without == NO_JSON


def _options(leaf: Leaf) -> set[str]:
    return {name for one in leaf.command.arguments for name in one.names}

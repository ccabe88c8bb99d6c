"""page.py: the page for a security review, rendered and looked at in a real browser."""

import re
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.running.containers import Running
from oci_bpf_hook.running.delegations import Delegation, warnings
from oci_bpf_hook.running.page import page
from tests.support import browser
from tests.support.situation import masks

ENUMS = kernel.enums(KINDS)
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\"'"


def delegation(
    name: str,
    *,
    network: bool = False,
    cgroup: bool = False,
    confined: bool | None = True,
    rule: str | None = "everything",
    **lists: str,
) -> Delegation:
    found = masks(lists)
    return Delegation(
        container=Running(
            pid=4242,
            user=1,
            mount=2,
            engine="podman",
            name=name,
            id="f" * 64,
            runtime=None,
            image="localhost/agent:latest",
            vouched=True,
        ),
        path="/sys/fs/bpf",
        device="0:70",
        shown=lists,
        masks=found,
        owner=0,
        user_namespace=1,
        covered=False,
        confined=confined,
        unseen="",
        host_network=network,
        host_cgroup=cgroup,
        rule=rule,
        warnings=tuple(
            warnings(found, ENUMS, confined=confined, host_network=network, host_cgroup=cgroup)
        ),
    )


SOME = (
    delegation(
        "counter",
        delegate_cmds="map_create:prog_load:btf_load",
        delegate_maps="hash:array",
        delegate_progs="socket_filter:xdp",
        delegate_attachs="cgroup_inet_ingress:xdp",
    ),
    delegation(
        "firewall",
        network=True,
        delegate_cmds="map_create:prog_load",
        delegate_maps="lpm_trie",
        delegate_progs="xdp:cgroup_skb",
        delegate_attachs="xdp",
    ),
    delegation(
        "tracer",
        rule=None,
        cgroup=True,
        delegate_cmds="map_create:prog_load",
        delegate_maps="ringbuf",
        delegate_progs="kprobe:cgroup_skb",
        delegate_attachs="trace_kprobe_multi",
    ),
    delegation(HOSTILE, rule=HOSTILE, delegate_cmds="map_create", delegate_maps="array"),
    delegation(
        "trusted",
        confined=False,
        delegate_cmds="map_create:prog_load",
        delegate_maps="hash",
        delegate_progs="socket_filter:cgroup_skb",
        delegate_attachs="cgroup_inet_ingress",
    ),
    delegation(
        "unmounted",
        confined=None,
        delegate_cmds="prog_load",
        delegate_progs="socket_filter",
        delegate_attachs="cgroup_inet_ingress",
    ),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(SOME, ENUMS, host="host-1", time="2026-01-02 03:04 UTC"), "utf-8")
    return path


# The rows as a reader sees them: for each type its cell's mark, title and colours.  Of a program
# and an attach type of the same name the program's, which comes first.
CELLS = """
[...document.querySelectorAll('tbody tr')].map(row => {
    const types = [...document.querySelectorAll('th.type')];
    const found = {};
    [...row.querySelectorAll('td.cell')].forEach(cell => {
        // Whatever it says in the source, what it stands below.
        const left = cell.getBoundingClientRect().left;
        const type = types.find(type => type.getBoundingClientRect().left == left).innerText;
        if (cell.innerText.trim() && !(type in found))
            found[type] = {
                mark: cell.innerText.trim(), title: cell.title,
                back: getComputedStyle(cell).backgroundColor, text: getComputedStyle(cell).color,
            };
    });
    return found;
})
"""


def channel(value: int) -> float:
    part = value / 255
    return part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two CSS colours."""

    def luminance(colour: str) -> float:
        red, green, blue = (channel(int(part)) for part in re.findall(r"\d+", colour)[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_and_marks(written: Path) -> None:
    counter, firewall, tracer, _, trusted, unmounted = browser.ask(written, CELLS)
    assert counter["xdp"]["mark"] == "●"
    assert counter["xdp"]["title"] == "xdp: reaches only the container itself"
    assert firewall["xdp"]["mark"] == "▲"
    assert firewall["cgroup_skb"]["mark"] == "●"
    assert tracer["cgroup_skb"]["mark"] == "▲"
    assert tracer["kprobe"]["mark"] == "■"
    assert "the whole kernel" in tracer["kprobe"]["title"]
    # Where nothing confines them, or nobody knows, programs reach the kernel, and maps don't.
    for row in (trusted, unmounted):
        assert row["socket_filter"]["mark"] == "■"
        assert row["cgroup_inet_ingress"]["mark"] == "●"
    assert (trusted["cgroup_skb"]["mark"], trusted["hash"]["mark"]) == ("■", "●")
    colours = {
        (cell["mark"], cell["back"])
        for row in (counter, firewall, tracer, trusted)
        for cell in row.values()
    }
    # One colour for each mark, and each another.
    assert len(colours) == len({mark for mark, _ in colours}) == len({back for _, back in colours})


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read(written: Path, *, dark: bool) -> None:
    rows = browser.ask(written, CELLS, dark=dark)
    for row in rows:
        for cell in row.values():
            assert contrast(cell["back"], cell["text"]) >= 4.5
    body = browser.ask(
        written,
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]",
        dark=dark,
    )
    assert contrast(*body) >= 7
    # It is dark where the reader wants that.
    assert (sum(map(int, re.findall(r"\d+", body[0])[:3])) < 384) == dark


LAYOUT = """
({
    page: document.documentElement.scrollWidth, window: innerWidth,
    types: [...document.querySelectorAll('th.type span')].map(type => {
        const box = type.getBoundingClientRect();
        return [box.left, box.right, box.top, box.bottom];
    }),
    sticky: getComputedStyle(document.querySelector('tbody .name')).position,
    names: [...document.querySelectorAll('tbody .name')].map(name => name.innerText),
    groups: [...document.querySelectorAll('th.group')].map(group => group.innerText),
    elements: document.querySelectorAll('script').length,
    warnings: [...document.querySelectorAll('td.warnings')].map(cell => cell.innerText),
    confined: [...document.querySelectorAll('tbody tr')].map(row => row.cells[4].innerText),
    title: document.title,
})
"""


@pytest.mark.parametrize("width", [600, 1280, 2400])
def test_nothing_lies_over_something_else(written: Path, width: int) -> None:
    found: dict[str, Any] = browser.ask(written, LAYOUT, width=width)
    # The table scrolls, the page doesn't.
    assert found["page"] <= found["window"]
    lefts = [left for left, *_ in found["types"]]
    rights = [right for _, right, *_ in found["types"]]
    assert all(right <= left for right, left in zip(rights, lefts[1:], strict=False))
    # Every name is upright in its column, in full.
    assert all(bottom - top > right - left for left, right, top, bottom in found["types"])
    assert found["sticky"] == "sticky"


def test_words(written: Path) -> None:
    found: dict[str, Any] = browser.ask(written, LAYOUT)
    assert found["title"] == "BPF delegations on host-1"
    assert found["groups"] == ["program types", "map types", "attach types", "commands"]
    assert [name.split("\n")[0] for name in found["names"][:3]] == ["counter", "firewall", "tracer"]
    assert found["confined"] == ["yes", "yes", "yes", "yes", "no", "?"]
    assert found["warnings"][0] == "none"
    for unconfined in found["warnings"][4:]:
        assert unconfined.startswith("reaches-beyond: socket_filter")
        assert "nothing confines" in unconfined
    assert found["warnings"][1].startswith("host-network: xdp: ")
    assert [line.split(":")[0] for line in found["warnings"][2].splitlines() if line] == [
        "host-cgroup",
        "reaches-beyond",
    ]


def test_what_people_chose_is_no_markup(written: Path) -> None:
    found: dict[str, Any] = browser.ask(written, LAYOUT)
    # The one script is the test's own.
    assert found["elements"] == 1
    assert found["names"][3].startswith(r"<script>alert(1)</script>\x1b[31m\u202e&" + "\"'")
    text = written.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_no_delegations(tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(page([], ENUMS, host="h", time="t"), "utf-8")
    assert browser.ask(path, "document.body.innerText.includes('no container has a delegation')")

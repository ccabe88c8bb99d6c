"""`oci-bpf-hook kernel`: the names, and what is said of them."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.bpf.capabilities import programs_that_take
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.bpf.type_facts import PERFMON, WITH_TOKEN
from oci_bpf_hook.errors import KERNEL_CANNOT, USAGE
from oci_bpf_hook.kernel import enums as kernel
from tests.support.command import answer, command
from tests.support.terminal import on_terminal

HEADER = "/usr/include/linux/bpf.h"


def rows(*arguments: str) -> dict[str, dict[str, dict[str, Any]]]:
    code, found = answer("kernel", *arguments)
    assert code == 0
    return {kind.option: {row["name"]: row for row in found[kind.option]} for kind in KINDS}


def test_the_running_kernels_names_and_values() -> None:
    found = rows()
    for option, enum in kernel.from_btf(KINDS).items():
        assert {name: row["value"] for name, row in found[option].items()} == dict(enum.values)


def test_what_a_token_makes_a_difference_to() -> None:
    found = rows("--table")
    cmds = found["delegate_cmds"]
    assert {name for name, row in cmds.items() if row["token"]} == set(WITH_TOKEN)
    assert all(row["token"] for row in found["delegate_progs"].values())
    # The kernel asks for one in btf_get_fd_by_id since 6.15.
    old = rows("--kernel", "6.12")["delegate_cmds"]
    assert old["btf_load"]["token"]
    assert not old["btf_get_fd_by_id"]["token"]
    assert rows("--kernel", "6.15.3-amd64")["delegate_cmds"]["btf_get_fd_by_id"]["token"]


def test_what_reaches_the_host() -> None:
    progs = rows("--table")["delegate_progs"]
    assert {name for name, row in progs.items() if row["reach"] == "host"} == {
        *programs_that_take(PERFMON),
        *("syscall", "lirc_mode2"),
    }
    assert progs["xdp"]["reach"] == "network"
    assert progs["sock_ops"]["reach"] == "cgroup"


def test_as_text() -> None:
    done = command("kernel", "--table")
    assert re.search(r"^ +5  prog_load +by 6\.9 +yes$", done.stdout, re.MULTILINE)
    assert re.search(r"^ +7  obj_get +by 6\.9 +no$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^ +19  btf_get_fd_by_id +by 6\.9 +yes, since 6\.15$", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^ +2  kprobe +by 6\.9 +with prog_load +host: reads kernel memory$",
        done.stdout,
        re.MULTILINE,
    )


def test_on_a_terminal() -> None:
    command = (sys.executable, "-m", "oci_bpf_hook", "kernel", "--table")
    code, text = on_terminal(command, columns=120)
    assert code == 0
    assert "\x1b[32myes, since 6.15\x1b[0m" in text
    assert re.search(r"kprobe .*\x1b\[33mhost: reads kernel memory", text)


def test_another_release() -> None:
    new = rows("--kernel", "6.17")["delegate_cmds"].keys()
    old = rows("--kernel", "6.16")["delegate_cmds"].keys()
    assert new - old == {"prog_stream_read_by_fd"}


def test_diff_with_a_release() -> None:
    done = command("kernel", "--kernel", "6.12", "--diff", "6.13")
    assert done.stdout == "+ delegate_attachs trace_uprobe_session  since 6.13\n"
    done = command("kernel", "--kernel", "6.13", "--diff", "6.12")
    assert done.stdout == "- delegate_attachs trace_uprobe_session  since 6.13\n"
    done = command("kernel", "--kernel", "6.13", "--diff", "6.13")
    assert done.stdout == "both kernels have the same names\n"


def test_diff_with_a_header() -> None:
    code, found = answer("kernel", "--header", HEADER, "--diff", "7.0")
    assert code == 0
    assert "prog_assoc_struct_ops" in found["delegate_cmds"]["only_there"]
    _, back = answer("kernel", "--kernel", "7.0", "--diff", HEADER)
    for kind in KINDS:
        assert found[kind.option]["only_there"] == back[kind.option]["only_here"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--kernel", "6.8"), KERNEL_CANNOT, "Linux 6.8 can't delegate BPF"),
        (("--kernel", "six"), USAGE, '"six" isn\'t a release of Linux'),
        (("--diff", "6.8"), KERNEL_CANNOT, "Linux 6.8 can't delegate BPF"),
        (("--diff", "/does/not/exist"), USAGE, "/does/not/exist: No such file"),
        (("--btf", "/etc/passwd"), USAGE, "--btf /etc/passwd: "),
        (("--btf", "/does/not/exist"), USAGE, "--btf /does/not/exist: No such file"),
        (("--btf", "/dev/zero"), USAGE, "--btf /dev/zero: it is a device"),
        (("--header", "/etc/passwd"), USAGE, "--header /etc/passwd: "),
        (("--kernel", "6.12", "--table"), USAGE, "not allowed with"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = command("kernel", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_btf_of_a_file(tmp_path: Path) -> None:
    copy = tmp_path / "vmlinux"
    copy.write_bytes(Path(kernel.VMLINUX).read_bytes())
    assert rows("--btf", str(copy)).keys() == rows().keys()

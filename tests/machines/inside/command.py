"""The command as a person runs it, on a kernel with tokens."""

from .cases import ENDS, TOKENS, Context, on
from .guarded import command


@on(*TOKENS)
def case_kernel(context: Context) -> None:
    """`kernel` has what this kernel lets a token do."""
    del context
    commands = {one["name"]: one["token"] for one in command("kernel")["delegate_cmds"]}
    assert commands["prog_load"]
    assert not commands["link_create"]


@on(*ENDS)
def case_doctor(context: Context) -> None:
    """`doctor` finds nothing wrong, and its self-test has made a token."""
    found = {one["what"]: one for one in command("doctor")["findings"]}
    assert found["kernel"]["why"] == f"Linux {context.release}"
    assert found["selftest"]["state"] == "ok", found["selftest"]


@on("bookworm")
def case_a_kernel_without_tokens(context: Context) -> None:
    """What tries a request says what the hook would say, and doctor says it of the kernel."""
    asks = ("--annotation", "io.bpffs.delegate_cmds=map_create")
    cannot = "this kernel can't delegate BPF; that takes Linux 6.9 or later"
    (tried,) = command("check", *asks, code=13)["containers"]
    assert (tried["granted"], tried["rule"] is None) == (None, False)
    (problem,) = (one["text"] for one in tried["findings"] if one["level"] == "problem")
    assert problem.startswith(cannot)
    (tried,) = command("explain", *asks, code=13)["containers"]
    assert (tried["masks"], tried["steps"], tried["mount"]) == ({}, [], None)
    answer = command("policy", "test", *asks, code=13)
    assert (answer["granted"], answer["rule"] is None) == (None, False)
    assert answer["problems"] == [cannot]
    # What it is tried for is a kernel that can.
    command("check", "--kernel", "6.12", *asks)
    # What else is wrong with it is said as well, and what the hook would find first comes first.
    (tried,) = command("check", *asks[:1], "io.bpffs.delegate_cmds=prog_lod", code=11)["containers"]
    found = {one["what"]: one for one in command("doctor", code=20)["findings"]}
    assert found["kernel"]["state"] == "problem"
    assert found["kernel"]["why"].startswith(f"Linux {context.release} can't delegate BPF; ")

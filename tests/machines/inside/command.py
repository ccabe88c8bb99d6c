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

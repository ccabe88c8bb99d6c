"""CDI devices of the policy's profiles: what `podman run --device bpffs.io/profile=xdp` gives.

A device of the Container Device Interface is a file of the administrator's, in which an engine
finds what to change about a container.  Ours change no more than this: the hook is run with the
profile's name as its argument, and libbpf is told where the token is if that isn't where it looks
by itself.  There is no device node: with one, crun before the fix of its issue 2025 hands the
hook a wrong bundle.
"""

from ..delegation.annotations import PATH
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

KIND = "bpffs.io/profile"
# Where Docker, podman, containerd and CRI-O look by default; the first is for administrators.
DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
DIRECTORY = DIRECTORIES[0]
# Named as the specification has it: vendor-class.json.
FILE = "bpffs.io-profile.json"
TOKEN_PATH = "LIBBPF_BPF_TOKEN_PATH"  # noqa: S105  A variable's name.
# The first that takes hooks and has no flaw that concerns us; a name that begins with a digit is
# taken since 0.5.0, and libraries refuse a file that says less than it uses.
_VERSION = "0.3.0"
_VERSION_OF_DIGITS = "0.5.0"


class Device(Value):
    """A device: its name, which hook it runs and how, the profile and where that is mounted."""

    __slots__ = ("engine", "name", "path", "profile", "program")
    name: str
    program: str
    profile: str | None
    path: str
    engine: str | None


def is_name(profile: str) -> bool:
    """Whether a profile's name can be a device's: it ends in a letter or a digit."""
    return profile[-1:].isalnum()


def spec(
    profiles: "Iterable[str]", hook: "Mapping[str, Any]", *, engine: str | None, path: str
) -> "dict[str, Any]":
    """The CDI file with a device for each of `profiles`, which is_name() holds for.

    `hook` is what runs the hook: its path, args, env and timeout.  `engine` is the name that the
    hook is told, `path` where the bpffs is mounted.
    """
    names = sorted(profiles)
    return {
        "cdiVersion": _VERSION_OF_DIGITS if any(n[0].isdigit() for n in names) else _VERSION,
        "kind": KIND,
        "devices": [_device(name, hook, engine, path) for name in names],
    }


def _device(
    profile: str, hook: "Mapping[str, Any]", engine: str | None, path: str
) -> "dict[str, Any]":
    args = [*hook["args"], *(["--engine", engine] if engine else []), "--profile", profile]
    edits: dict[str, Any] = {}
    if path != PATH:
        args += ["--path", path]
        edits["env"] = [f"{TOKEN_PATH}={path}"]
    edits["hooks"] = [{"hookName": "createRuntime", **hook, "args": args}]
    return {"name": profile, "containerEdits": edits}


def devices(data: "Mapping[str, Any]") -> tuple[Device, ...]:
    """The devices of the CDI file `data`, which is as schema/cdi.schema.json says."""
    return tuple(
        _read(device["name"], device["containerEdits"]["hooks"][0]) for device in data["devices"]
    )


def _read(name: str, hook: "Mapping[str, Any]") -> Device:
    words = hook["args"][1:]
    options = dict(zip(words[::2], words[1::2], strict=False))
    return Device(
        name=name,
        program=hook["path"],
        profile=options.get("--profile"),
        path=options.get("--path", PATH),
        engine=options.get("--engine"),
    )

"""CDI devices for the policy's profiles, as in `podman run --device bpffs.io/profile=xdp`.

A device of the Container Device Interface is described in an administrator's file, which tells an
engine what to change about a container.  Our devices change two things: the hook is run with the
profile's name as an argument, and libbpf is told where the bpffs is, unless it looks there anyway.
Devices with the shim also mount it and have it preloaded, instead of what the image preloads.
They have no device node: for a container with one, crun before the fix of its issue 2025 gives the
hook a wrong bundle.
"""

from ..delegation.annotations import PATH
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

KIND = "bpffs.io/profile"
# The directories in which Docker, podman, containerd and CRI-O look by default.  The first one is
# for administrators' files.
DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
DIRECTORY = DIRECTORIES[0]
# The specification's form of a name is vendor-class.json.
FILE = "bpffs.io-profile.json"
TOKEN_PATH = "LIBBPF_BPF_TOKEN_PATH"  # noqa: S105  A variable's name.
# Where a container has the shim, and what has its programs preload it.  AddressSanitizer's runtime
# ends a program if the first library's path doesn't contain libasan.so, because the runtime has to
# replace functions of libc.  The shim has none of these functions, so it may come first.
PLACE = "/usr/lib/oci-bpf-hook/with-libasan.so/libbpf-token-shim.so"
PRELOAD = "LD_PRELOAD"
OPTIONS = ("bind", "ro", "nosuid", "nodev")
# The version of the specification that a file of ours names is the lowest that has all it uses,
# because libraries refuse a file that uses more than its version has.  Hooks need 0.3.0, the first
# version without a flaw that concerns us, and names that begin with a digit need 0.5.0.
_VERSION = "0.3.0"
_VERSION_OF_DIGITS = "0.5.0"


class Device(Value):
    """A device `name`, with the `program` of its hook and the arguments that it gives the hook.

    `profile` is None if the hook gets none; `engine` is None if no engine is named; `path` is where
    the bpffs is mounted; `shim` is the text of the hook's option --shim, or None.
    """

    __slots__ = ("engine", "name", "path", "profile", "program", "shim")
    name: str
    program: str
    profile: str | None
    path: str
    engine: str | None
    shim: str | None


def is_name(profile: str) -> bool:
    """Whether a profile's name can be a device's, which has to end in a letter or a digit."""
    return profile[-1:].isalnum()


def spec(
    profiles: "Iterable[str]",
    hook: "Mapping[str, Any]",
    *,
    engine: str | None,
    path: str,
    library: str | None = None,
) -> "dict[str, Any]":
    """The CDI file with a device for each of `profiles`, whose names have to pass is_name().

    `hook` has the hook's path, args, env and timeout.  `engine` is the value of the hook's option
    --engine, or None, and `path` is where the bpffs is to be mounted.  `library` is the shim on the
    host, if the devices have it.
    """
    names = sorted(profiles)
    return {
        "cdiVersion": _VERSION_OF_DIGITS if any(n[0].isdigit() for n in names) else _VERSION,
        "kind": KIND,
        "devices": [_device(name, hook, engine, path, library) for name in names],
    }


def _device(
    profile: str, hook: "Mapping[str, Any]", engine: str | None, path: str, library: str | None
) -> "dict[str, Any]":
    args = [*hook["args"], *(["--engine", engine] if engine else []), "--profile", profile]
    edits: dict[str, Any] = {}
    if path != PATH:
        args += ["--path", path]
        edits["env"] = [f"{TOKEN_PATH}={path}"]
    if library:
        args += ["--shim", "true"]
        edits["env"] = [*edits.get("env", []), f"{PRELOAD}={PLACE}"]
        edits["mounts"] = [
            {"hostPath": library, "containerPath": PLACE, "options": [*OPTIONS]},
        ]
    edits["hooks"] = [{"hookName": "createRuntime", **hook, "args": args}]
    return {"name": profile, "containerEdits": edits}


def devices(data: "Mapping[str, Any]") -> tuple[Device, ...]:
    """The devices of the CDI file `data`, which has to be valid by schema/cdi.schema.json."""
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
        shim=options.get("--shim"),
    )

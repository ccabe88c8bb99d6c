"""A delegation in the words of each program that can be told to delegate."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..annotations import MODE, PATH, Request
from ..names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Kind
from .delegation import Delegation, Written, names, needed

Profiles = Mapping[str, Mapping[str, int]]

IMAGE = "IMAGE"
# systemd.exec(5), since 258.
SYSTEMD = {
    CMDS.option: "BPFDelegateCommands",
    MAPS.option: "BPFDelegateMaps",
    PROGS.option: "BPFDelegatePrograms",
    ATTACHS.option: "BPFDelegateAttachments",
}
# What Incus' documentation of BPF token delegation has, and LXD's.
INCUS = {kind.option: f"security.bpffs.{kind.option}" for kind in KINDS}
LXD = {
    CMDS.option: "security.delegate_bpf.cmd_types",
    MAPS.option: "security.delegate_bpf.map_types",
    PROGS.option: "security.delegate_bpf.prog_types",
    ATTACHS.option: "security.delegate_bpf.attach_types",
}


def annotations(one: Delegation, profiles: Profiles) -> Written:
    """Lines of KEY=VALUE."""
    lines = (f"{key}={value}\n" for key, value in one.request.annotations().items())
    return Written(text="".join(lines), notes=())


def podman(one: Delegation, profiles: Profiles) -> Written:
    """A command line, for a shell."""
    words = ["podman", "run", "--name", one.name, "--userns=auto"]
    for capability in needed(one.request, profiles):
        words += ["--cap-add", capability]
    for key, value in one.request.annotations().items():
        words += ["--annotation", f"{key}={value}"]
    return Written(text=f"{shlex.join([*words, one.image or IMAGE])}\n", notes=_image(one))


def kubernetes(one: Delegation, profiles: Profiles) -> Written:
    """A pod's manifest."""
    import yaml

    name = _dns_label(one.name)
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": one.request.annotations()},
        "spec": {
            "hostUsers": False,
            "containers": [
                {
                    "name": name,
                    "image": one.image or IMAGE,
                    "securityContext": {
                        "capabilities": {"add": needed(one.request, profiles)},
                    },
                }
            ],
        },
    }
    text = yaml.safe_dump(pod, sort_keys=False, allow_unicode=True, width=1000)
    return Written(text=f"---\n{text}", notes=_image(one))


def quadlet(one: Delegation, profiles: Profiles) -> Written:
    """A *.container file."""
    # A name or an image with a line's end in it would be a setting of its own.
    name = re.sub(r"[^\w.-]+", "-", one.name)
    lines = ["[Container]", f"ContainerName={name}", f"Image={one.image or IMAGE}"]
    lines.append("UserNS=auto")
    lines += [f"AddCapability=CAP_{name}" for name in needed(one.request, profiles)]
    for key, value in one.request.annotations().items():
        lines.append(f"Annotation={_quoted(f'{key}={value}')}")
    return Written(text="\n".join(lines) + "\n", notes=_image(one))


def systemd(one: Delegation, profiles: Profiles) -> Written:
    """A drop-in for a service."""
    notes: list[str] = []
    found = names(one.request, profiles, notes)
    lines = ["[Service]"]
    # A token exists in a user namespace only; PrivateBPF= wants the mount namespace to be its.
    lines += ["PrivateUsers=yes", "PrivateMounts=yes", "DelegateNamespaces=mnt", "PrivateBPF=yes"]
    for kind in KINDS:
        if kind.option in found:
            items = (_systemd_name(kind, name) for name in found[kind.option])
            lines.append(f"{SYSTEMD[kind.option]}={','.join(items)}")
    progs = found.get(PROGS.option, ())
    if "netfilter" in progs:
        notes.append(
            "systemd 258 to 261 takes BPFProgTypeNetfilter for the program type syscall, which "
            "reaches the whole host; look at the mount with: mount -t bpf"
        )
    if "syscall" in progs:
        notes.append("systemd 258 to 261 knows no BPFProgTypeSyscall")
    if one.request.path != PATH:
        notes.append(f"systemd mounts at {PATH} alone, not at {one.request.path}")
    notes += _only_ours(one.request, "systemd")
    return Written(text="\n".join(lines) + "\n", notes=tuple(notes))


def incus(one: Delegation, profiles: Profiles) -> Written:
    """The configuration of an instance or profile."""
    notes: list[str] = []
    found = names(one.request, profiles, notes)
    config = {INCUS[option]: ",".join(items) for option, items in found.items()}
    if one.request.path != PATH:
        config["security.bpffs.path"] = one.request.path
    notes += _only_ours(one.request, "Incus")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def lxd(one: Delegation, profiles: Profiles) -> Written:
    """The configuration of an instance or profile."""
    notes: list[str] = []
    found = names(one.request, profiles, notes)
    config = {"security.delegate_bpf": "true"}
    config |= {LXD[option]: ":".join(items) for option, items in found.items()}
    if one.request.path != PATH:
        notes.append(f"LXD mounts at {PATH} alone, not at {one.request.path}")
    notes += _only_ours(one.request, "LXD")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def _instance(name: str, config: Mapping[str, str]) -> str:
    import yaml

    return yaml.safe_dump({"name": name, "config": dict(config)}, sort_keys=False, width=1000)


def _only_ours(request: Request, program: str) -> list[str]:
    """Notes for what no other program can be asked for."""
    notes: list[str] = []
    if request.record:
        notes.append(f"{program} records nothing; convert what the recording comes to")
    if request.mode != MODE:
        notes.append(f"{program} can't set the mode {request.mode:04o}; it is the kernel's own")
    if request.drop_unknown:
        notes.append(f"{program} can't drop names that a kernel lacks; take them out")
    return notes


def _image(one: Delegation) -> tuple[str, ...]:
    return () if one.image else (f"{IMAGE} stands for the image, which the source doesn't name",)


def _dns_label(name: str) -> str:
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-")
    return plain or "container"


def _quoted(text: str) -> str:
    """`text` as a word of a unit file, in which % begins a specifier."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w=:,./!%@+-]+", text):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _systemd_name(kind: Kind, name: str) -> str:
    """systemd's name for the kernel's: BPFMapTypeLruHash."""
    if name == "any":
        return name
    first, *words = f"{kind.prefix}{name}".split("_")
    return first + "".join(word.capitalize() for word in words)

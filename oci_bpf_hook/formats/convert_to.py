"""A delegation in the words of each program that can be told to delegate: whole files."""

import re
import shlex
from collections.abc import Mapping

from ..delegation.annotations import MODE, PATH, Request
from . import snippets
from .delegation import Delegation, Written, names, needed

Profiles = Mapping[str, Mapping[str, int]]

IMAGE = "IMAGE"


def annotations(one: Delegation, profiles: Profiles) -> Written:
    """Lines of KEY=VALUE."""
    lines = (f"{key}={value}\n" for key, value in one.request.annotations().items())
    return Written(text="".join(lines), notes=())


def podman(one: Delegation, profiles: Profiles) -> Written:
    """A command line, for a shell."""
    words = ["podman", "run", "--name", one.name, "--userns=auto"]
    for option in snippets.podman_options(one.request.annotations(), needed(one.request, profiles)):
        words += option
    return Written(text=f"{shlex.join([*words, one.image or IMAGE])}\n", notes=_image(one))


def kubernetes(one: Delegation, profiles: Profiles) -> Written:
    """A pod's manifest."""
    name = snippets.dns_label(one.name, "container")
    metadata, spec = snippets.kubernetes_pod(
        name, one.image or IMAGE, one.request.annotations(), needed(one.request, profiles)
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
    return Written(text=f"---\n{snippets.as_yaml(pod)}", notes=_image(one))


def quadlet(one: Delegation, profiles: Profiles) -> Written:
    """A *.container file."""
    # A name or an image with a line's end in it would be a setting of its own.
    name = re.sub(r"[^\w.-]+", "-", one.name)
    lines = ["[Container]", f"ContainerName={name}", f"Image={one.image or IMAGE}"]
    lines += snippets.quadlet_settings(one.request.annotations(), needed(one.request, profiles))
    return Written(text="\n".join(lines) + "\n", notes=_image(one))


def systemd(one: Delegation, profiles: Profiles) -> Written:
    """A drop-in for a service."""
    notes: list[str] = []
    found = names(one.request, profiles, notes)
    lines = ["[Service]", *snippets.systemd_settings(found)]
    notes += snippets.systemd_notes(found)
    if one.request.path != PATH:
        notes.append(f"systemd mounts at {PATH} alone, not at {one.request.path}")
    notes += _only_ours(one.request, "systemd")
    return Written(text="\n".join(lines) + "\n", notes=tuple(notes))


def incus(one: Delegation, profiles: Profiles) -> Written:
    """The configuration of an instance or profile."""
    notes: list[str] = []
    config = snippets.incus_config(names(one.request, profiles, notes))
    if one.request.path != PATH:
        config["security.bpffs.path"] = one.request.path
    notes += _only_ours(one.request, "Incus")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def lxd(one: Delegation, profiles: Profiles) -> Written:
    """The configuration of an instance or profile."""
    notes: list[str] = []
    config = snippets.lxd_config(names(one.request, profiles, notes))
    if one.request.path != PATH:
        notes.append(f"LXD mounts at {PATH} alone, not at {one.request.path}")
    notes += _only_ours(one.request, "LXD")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def _instance(name: str, config: Mapping[str, str]) -> str:
    return snippets.as_yaml({"name": name, "config": dict(config)})


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

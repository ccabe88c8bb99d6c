"""Writes a delegation as a whole file for each program that can delegate."""

import re
import shlex
from collections.abc import Mapping

from ..delegation.annotations import MODE, PATH, Request
from ..delegation.written import written
from . import snippets
from .delegation import Delegation, Written, names, needed

Profiles = Mapping[str, Mapping[str, int]]

IMAGE = "IMAGE"


def annotations(one: Delegation, profiles: Profiles) -> Written:
    """Write lines of KEY=VALUE."""
    lines = (f"{key}={value}\n" for key, value in written(one.request).items())
    return Written(text="".join(lines), notes=())


def podman(one: Delegation, profiles: Profiles) -> Written:
    """Write a command line for a shell."""
    words = ["podman", "run", "--name", one.name, "--userns=auto"]
    for option in snippets.podman_options(written(one.request), needed(one.request, profiles)):
        words += option
    return Written(text=f"{shlex.join([*words, one.image or IMAGE])}\n", notes=_image(one))


def kubernetes(one: Delegation, profiles: Profiles) -> Written:
    """Write a pod's manifest."""
    name = snippets.dns_label(one.name, "container")
    metadata, spec = snippets.kubernetes_pod(
        name, one.image or IMAGE, written(one.request), needed(one.request, profiles)
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
    return Written(text=f"---\n{snippets.as_yaml(pod)}", notes=_image(one))


def quadlet(one: Delegation, profiles: Profiles) -> Written:
    """Write a *.container file."""
    # A name or an image with a line end in it could add a setting.
    name = re.sub(r"[^\w.-]+", "-", one.name)
    lines = ["[Container]", f"ContainerName={name}", f"Image={one.image or IMAGE}"]
    lines += snippets.quadlet_settings(written(one.request), needed(one.request, profiles))
    return Written(text="\n".join(lines) + "\n", notes=_image(one))


def systemd(one: Delegation, profiles: Profiles) -> Written:
    """Write a drop-in for a service."""
    notes: list[str] = []
    found = names(one.request, profiles, notes)
    lines = ["[Service]", *snippets.systemd_settings(found)]
    notes += snippets.systemd_notes(found)
    if one.request.path != PATH:
        notes.append(f"systemd mounts the bpffs only at {PATH}, and not at {one.request.path}")
    notes += _only_ours(one.request, "systemd")
    return Written(text="\n".join(lines) + "\n", notes=tuple(notes))


def incus(one: Delegation, profiles: Profiles) -> Written:
    """Write the configuration of an instance or profile of Incus."""
    notes: list[str] = []
    config = snippets.incus_config(names(one.request, profiles, notes))
    if one.request.path != PATH:
        config["security.bpffs.path"] = one.request.path
    notes += _only_ours(one.request, "Incus")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def lxd(one: Delegation, profiles: Profiles) -> Written:
    """Write the configuration of an instance or profile of LXD."""
    notes: list[str] = []
    config = snippets.lxd_config(names(one.request, profiles, notes))
    if one.request.path != PATH:
        notes.append(f"LXD mounts the bpffs only at {PATH}, and not at {one.request.path}")
    notes += _only_ours(one.request, "LXD")
    return Written(text=_instance(one.name, config), notes=tuple(notes))


def _instance(name: str, config: Mapping[str, str]) -> str:
    return snippets.as_yaml({"name": name, "config": dict(config)})


def _only_ours(request: Request, program: str) -> list[str]:
    """A note for each thing that only our annotations can ask for."""
    notes: list[str] = []
    if request.record:
        notes.append(f"{program} records nothing; convert the result of the recording instead")
    if request.mode != MODE:
        notes.append(f"{program} can't set the mode {request.mode:04o}; the kernel's default holds")
    if request.drop_unknown:
        notes.append(f"{program} can't drop names that a kernel lacks; leave them out yourself")
    return notes


def _image(one: Delegation) -> tuple[str, ...]:
    return (
        () if one.image else (f"{IMAGE} stands for the image, which isn't known from the source",)
    )

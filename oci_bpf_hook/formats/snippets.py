"""Writes the parts of each program's configuration that a delegation needs.

`convert` makes whole files of these parts, and `advise` and `record` print them to be pasted.  The
delegation is given as annotations or, for programs that take only names, as names by their option;
capabilities are given without CAP_.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Kind
from ..errors import USAGE, HookError

Lists = Mapping[str, Sequence[str]]

# The settings in systemd.exec(5), since 258.
SYSTEMD = {
    CMDS.option: "BPFDelegateCommands",
    MAPS.option: "BPFDelegateMaps",
    PROGS.option: "BPFDelegatePrograms",
    ATTACHS.option: "BPFDelegateAttachments",
}
# The keys in Incus' and LXD's documentation of BPF token delegation.
INCUS = {kind.option: f"security.bpffs.{kind.option}" for kind in KINDS}
LXD = {
    CMDS.option: "security.delegate_bpf.cmd_types",
    MAPS.option: "security.delegate_bpf.map_types",
    PROGS.option: "security.delegate_bpf.prog_types",
    ATTACHS.option: "security.delegate_bpf.attach_types",
}


def podman_options(
    annotations: Mapping[str, str], capabilities: Iterable[str]
) -> list[tuple[str, str]]:
    """The options of `podman run`, each with its value."""
    return [
        *(("--cap-add", name) for name in capabilities),
        *(("--annotation", f"{key}={value}") for key, value in annotations.items()),
    ]


def quadlet_settings(annotations: Mapping[str, str], capabilities: Iterable[str]) -> list[str]:
    """The lines for the section [Container] of a *.container file."""
    names = " ".join(capabilities)
    return [
        "UserNS=auto",
        *([f"AddCapability={names}"] if names else []),
        *(f"Annotation={_quoted(f'{key}={value}')}" for key, value in annotations.items()),
    ]


def kubernetes_pod(
    name: str, image: str | None, annotations: Mapping[str, str], capabilities: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata and the spec of a pod whose only container is called `name`."""
    spec = {
        "hostUsers": False,
        "containers": [
            {
                "name": name,
                **({"image": image} if image else {}),
                "securityContext": {"capabilities": {"add": list(capabilities)}},
            }
        ],
    }
    return {"annotations": dict(annotations)}, spec


def systemd_settings(lists: Lists) -> list[str]:
    """The lines for the section [Service] of a service."""
    # A token exists only in a user namespace, and PrivateBPF= needs a mount namespace that this
    # user namespace owns.
    lines = ["PrivateUsers=yes", "PrivateMounts=yes", "DelegateNamespaces=mnt", "PrivateBPF=yes"]
    for kind in KINDS:
        if names := lists.get(kind.option):
            items = (_systemd_name(kind, name) for name in names)
            lines.append(f"{SYSTEMD[kind.option]}={','.join(items)}")
    return lines


def systemd_notes(lists: Lists) -> list[str]:
    """A note for each setting of `systemd_settings` that some releases of systemd misread."""
    notes = []
    programs = lists.get(PROGS.option, ())
    if "netfilter" in programs:
        notes.append(
            "systemd 258 and later take BPFProgTypeNetfilter for the program type syscall, which "
            "reaches the whole host; look at the mount with: mount -t bpf"
        )
    if "syscall" in programs:
        notes.append("systemd 258 and later don't know BPFProgTypeSyscall")
    return notes


def incus_config(lists: Lists) -> dict[str, str]:
    """The keys for the configuration of an instance or profile of Incus."""
    return {INCUS[option]: ",".join(names) for option, names in lists.items() if names}


def lxd_config(lists: Lists) -> dict[str, str]:
    """The keys for the configuration of an instance or profile of LXD."""
    return {
        "security.delegate_bpf": "true",
        **{LXD[option]: ":".join(names) for option, names in lists.items() if names},
    }


def as_yaml(data: Mapping[str, Any]) -> str:
    """`data` as a YAML document, in its own order.  Raises HookError (USAGE) without PyYAML."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise HookError(USAGE, f"{error}: printing YAML needs python3-yaml") from None

    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=1000)


def dns_label(text: str, otherwise: str) -> str:
    """A name that policies and Kubernetes take for a profile or container, made from any `text`.

    It is `otherwise` if nothing of the text is left.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    return plain[:63].rstrip("-") or otherwise


def _quoted(text: str) -> str:
    """`text` as a word of a unit file, in which % begins a specifier."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w=:,./!%@+-]+", text):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _systemd_name(kind: Kind, name: str) -> str:
    """systemd's name for the kernel's `name`, such as BPFMapTypeLruHash."""
    if name == "any":
        return name
    first, *words = f"{kind.prefix}{name}".split("_")
    return first + "".join(word.capitalize() for word in words)

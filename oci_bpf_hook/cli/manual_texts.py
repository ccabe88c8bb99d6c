"""The texts of the man pages that are neither in a table nor in a command's own module."""

from ..audit.allowance import OF_USER
from ..broker.arrivals import PATIENCE
from ..broker.waiting import SILENCE, WAITING_OF_USER
from ..broker.wire import LONGEST
from ..broker.worker import DEADLINE
from ..delegation.annotations import MODE, PATH
from ..paths import AUDIT_TO, PINS, PLUGIN_LOCK, PODS, SOCKET
from ..paths import POLICY as ETC
from ..pipeline.outcomes import LONGEST as LINE

MAIN = """
The hook mounts a bpffs in a container, with the delegate_* options that the container's annotations
ask for and the policy allows. This command works out what to ask for, says what the policy decides,
finds out why BPF doesn't work in a container, and installs and runs the hook.
"""
ANNOTATIONS = {
    "delegate_cmds": "Commands of bpf(2): a list of items.",
    "delegate_maps": "Map types: a list of items.",
    "delegate_progs": "Program types: a list of items.",
    "delegate_attachs": "Attach types: a list of items.",
    "profile": "Names of profiles in the policy, whose items are added to the lists.",
    "record": "A name. The container gets all that the policy allows, to be recorded: see "
    "oci-bpf-hook-record(1).",
    "shim": "true, to preload the shim in the container, which makes tokens for programs that make "
    "none themselves, or false (the default).",
    "path": f"Where the bpffs is mounted in the container (default: {PATH}). Missing directories "
    "are made, except in a volume.",
    "mode": f"The octal mode of the root directory of the bpffs (default: {MODE:o}).",
    "on_unknown": "fail (the default), or drop to leave out names that only newer kernels have.",
}
ITEMS = """
Items are separated by commas, colons or white space. An item is a kernel's name in any case
(`prog_load`, `BPF_PROG_LOAD`, or as systemd spells it, `BPFProgLoad`), `any`, or a hexadecimal mask
(`0x21`). A `!` before an item removes it from the list. KEY/NAME counts for the container NAME
alone, and overrides KEY. Any other key that begins with io.bpffs., and any unknown name, is an
error, and then the container isn't started.
"""
POLICY = f"""
Annotations are a request, and {ETC} decides about it. The file and the directories above it must
belong to root, must not be writable by others, and must not be symbolic links. A file with any
error in it allows nothing (exit code 18). If the file doesn't exist, the built-in policy holds:
`oci-bpf-hook policy show` prints that, as a file to begin with.

It is YAML without aliases. Rules are tried in order, and the first one that matches decides alone.
A request that no rule matches is refused. What a rule allows is a ceiling. A request beyond it is
refused, and the refusal names each item that is too much; with `on_excess: trim` the request is cut
down to the ceiling instead.

When the broker decides about a rootless user's containers, everything but the kernel's word is a
claim: a rule that allows something never matches because of a claim.

podman before 4.6 passes on the annotations in an image's manifest as if they were the container's.
An annotation whose text is exactly the image's is therefore taken to be the image's. It is refused
if it makes a difference, unless image_annotations says otherwise, and precreate adds nothing for
it in any case. To ask for the same thing nevertheless, use the key with the container's name
(io.bpffs.profile/NAME), which overrides the other. An annotation with an empty text removes the
image's.
"""
CONFINED = """
Masks choose commands and types, but not what a program calls: by themselves they let a program of
any type reach the kernel, and so the whole host. A grant is therefore confined, unless its rule
says `confined: false`. The guard, a set of BPF LSM programs, confines the tokens of such a grant:
they give no CAP_PERFMON, and their programs can call only the kernel functions (kfuncs) on the
guard's list.

A confined request with prog_load is refused if the guard isn't in force. `oci-bpf-hook guard on`
loads it, if the kernel has BPF LSM. A request for maps and BTF alone, without prog_load, doesn't
need the guard. A confined rule never gives the program types that need CAP_PERFMON (kprobe,
tracepoint, perf_event, raw_tracepoint, raw_tracepoint_writable, tracing, lsm, struct_ops, ext),
syscall, lirc_mode2, types that this version doesn't know, or the map types struct_ops and
insn_array.

With `confined: false` the administrator trusts whoever matches with the kernel.
`oci-bpf-hook policy check` warns of each such rule, and warns again if the rule is for everybody,
or depends on what the requester says or on `rootless`.
"""
MATCH = """
A value is a glob, or a list of globs. What a rule matches can be trusted as far as whoever sets it,
and each key below says who that is. Where it is the engine, --engine or engine: must name one of
the engines listed there; otherwise the requester sets the value. `oci-bpf-hook policy check` warns
of a rule that allows something on the word of the requester alone.
"""
_WHO_ASKS = """
The kernel says who asks. The broker holds on to the process that connected, as it was at that
moment. That process must be in a user namespace below the initial one, with a mount namespace of
its own, and with a user id that is mapped in the user namespace. The user who asks is the one who
made the outermost of its user namespaces. If the id of that user belongs to no account, the user is
the one to whom subuid(5) gives the id. Root may have made a namespace for somebody else, as a
set-user-id sandbox does: the namespace counts as root's only if no id of an account or of a
subordinate range is mapped in it. Otherwise it belongs to the user whose id that is, or to nobody
if there are several such users. The user's groups are those in the host's database, and those of
the process itself.

What the hook says about the container (its name, image, namespace and pod) is a claim. It goes into
the audit trail, and a rule that denies may match it, but a rule that allows something never matches
because of it.

For a rootless user's own containers host_network and host_cgroup are always true, since users can
enter and leave their own namespaces with a token in hand. For other containers both are true unless
every process in the container's user namespace, and in the user namespaces inside it, shows that
they are false. They are also true if the process that asks is in one of these inner namespaces.

A container that has the socket mounted speaks for whoever made its user namespace. In a rootful
container that is root: don't mount the socket there.
"""
_LIMITS = f"""
A request is one packet of at most {LONGEST} bytes; one that comes with file descriptors is refused.
A connection may be silent for {SILENCE} seconds, and its request may take {DEADLINE} seconds. One
user may have at most {WAITING_OF_USER} connections that wait, and half of the requests that are
served at a time. Users take turns.

A user who asks more often than `--rate` allows gets an answer that says so. If a user connects
{PATIENCE} times as often as that, connections are dropped without an answer, and the log says how
many. Connections are counted by the uid that connects; all uids that subuid(5) gives to one user
count as one.

A refusal takes up at most {LINE} bytes, and one user's refusals in a minute at most {OF_USER}
bytes, in the audit trail and the log together. Of further refusals only the number is recorded.
"""
_FORMATS = {
    "annotations": "Lines of KEY=VALUE, or a JSON object.",
    "incus, lxd": "Instances and profiles in YAML, as their clients show them.",
    "kubernetes": "A manifest. Each container in it that asks for something is converted.",
    "podman": "The command line of `podman run`.",
    "quadlet": "A *.container file, with its drop-ins, or a *.kube.",
    "systemd": "A service unit, or a drop-in for one.",
}
_SIGNALS = {
    "SIGHUP": "Read the policy again, even if its file looks unchanged.",
    "SIGTERM, SIGINT": "Accept no more requests, finish those that have begun, and exit.",
}
_ENVIRONMENT = {
    "LISTEN_FDS, LISTEN_PID": "One listening socket, from systemd, instead of the broker's own.",
    "NOTIFY_SOCKET": "The socket on which the broker tells systemd that it is ready or stops.",
}
FILES = {
    ETC: "The policy, oci-bpf-hook-policy(5).",
    AUDIT_TO: "The audit trail, a line of JSON for each decision, unless the policy names another "
    "file.",
    PINS: "Where the guard is pinned, so that it outlives whoever loads it.",
    "/usr/share/containers/oci/hooks.d": "Where podman and CRI-O look for the JSON of hooks.",
    "/usr/share/containers/oci/precreate.d": "Where podman looks for hooks of its precreate stage, "
    "if containers.conf(5) says so.",
}
POLICY_FILES = {
    ETC: "The policy. Without it the built-in policy holds.",
    AUDIT_TO: "The audit trail, unless the policy names another file.",
}
_PLUGINS_ENVIRONMENT = {
    "NRI_PLUGIN_SOCKET, NRI_PLUGIN_NAME, NRI_PLUGIN_IDX": "The fd of the connection, and the name "
    "and index to register with, if an engine has started the plugin. The options --socket, --name "
    "and --idx are ignored then, and the plugin exits when the connection ends.",
    "NOTIFY_SOCKET": "The socket by which the plugin tells systemd that the engine accepted it.",
}
_PLUGINS_FILES = {
    ETC: "The policy, oci-bpf-hook-policy(5).",
    PODS: "A tmpfs in the engine's mount namespace, for the bpffs of containers that are being "
    "created. Nothing else may be put there.",
    PLUGIN_LOCK: "The file in the engine's mount namespace that the plugin locks while it serves.",
}
_BROKER_FILES = {
    ETC: "The policy, oci-bpf-hook-policy(5).",
    SOCKET: "The socket on which the broker listens and the hook asks.",
}
# Further sections of a command's page; each is text in paragraphs, or a text for each of its names.
SECTIONS: dict[str, dict[str, str | dict[str, str]]] = {
    "convert": {"FORMATS": _FORMATS},
    "broker": {
        "WHO ASKS": _WHO_ASKS,
        "LIMITS": _LIMITS,
        "SIGNALS": _SIGNALS,
        "ENVIRONMENT": _ENVIRONMENT,
        "FILES": _BROKER_FILES,
    },
    "nri": {
        "SIGNALS": _SIGNALS,
        "ENVIRONMENT": _PLUGINS_ENVIRONMENT,
        "FILES": _PLUGINS_FILES,
    },
}
_OTHERS = "oci-bpf-hook(1) lists the other exit codes."
ANY_EXIT_STATUS = f"The exit code is 0 if all went well. {_OTHERS}"
_OF_HOOK = "The exit code is the one that the hook would exit with; oci-bpf-hook(1) lists them."
# The texts for commands with exit codes of their own.
EXIT_STATUS = {
    "cdi": "The exit code is 0 if all went well. If something is wrong, `cdi check` exits with the "
    f"code of a device that would be refused, or else with 2. {_OTHERS}",
    "check": f"{_OF_HOOK} With --strict a warning counts as a refusal by the policy, 12.",
    "doctor": f"The exit code is 0 if there is no problem, and 20 if there is one. {_OTHERS}",
    "explain": _OF_HOOK,
    "guard": "The exit code is 0 if all went well. `guard on` exits with 13 if this host can't "
    "have the guard, `guard off` with 16 while the guard confines containers, and "
    f"`guard status` with 20 if the guard isn't in force. {_OTHERS}",
    "lint": "The exit code is 0, even if there are warnings; with --strict it is 12 if there are. "
    f"{_OTHERS}",
    "record": "The exit code is that of the command that was recorded. With --verify it is 1 if "
    "what was found isn't enough, and 0 otherwise. With --diff it is 1 if the two differ. "
    "oci-bpf-hook(1) lists the exit codes of record itself.",
    "uninstall": "The exit code is 0 if all went well, 2 if another CDI file uses the hook, and 16 "
    f"while the guard confines containers. {_OTHERS}",
}
# What SEE ALSO names beside oci-bpf-hook(1): our commands by name, other pages by name and section.
_POLICY_PAGE = ("oci-bpf-hook-policy", 5)
RELATED: dict[str, tuple[str | tuple[str, int], ...]] = {
    "advise": ("record", "convert", ("bpf", 2)),
    "broker": (_POLICY_PAGE, ("systemd.socket", 5), ("subuid", 5)),
    "cdi": ("install", _POLICY_PAGE),
    "check": ("explain", "lint", _POLICY_PAGE),
    "convert": ("check", ("podman-systemd.unit", 5)),
    "delegate": ("inspect", _POLICY_PAGE),
    "doctor": ("inspect", "check"),
    "explain": ("check", _POLICY_PAGE),
    "guard": (_POLICY_PAGE, ("bpf", 2)),
    "help": (),
    "hook": ("explain", ("oci-hooks", 5)),
    "inject": ("seccomp", ("capabilities", 7)),
    "inspect": ("delegate", "doctor"),
    "install": ("uninstall", "broker", "guard", ("oci-hooks", 5), ("containers.conf", 5)),
    "kernel": ("lint", ("bpf", 2)),
    "lint": ("check", "kernel"),
    "nri": ("hook", _POLICY_PAGE),
    "policy": (_POLICY_PAGE, "explain"),
    "record": ("advise", _POLICY_PAGE),
    "seccomp": ("inject", ("containers.conf", 5), ("seccomp", 2)),
    "uninstall": ("install", "cdi", "guard"),
}

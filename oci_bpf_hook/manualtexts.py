"""What the manual says of the policy and of the broker, beside what stands in tables."""

from .allowance import OF_USER
from .arrivals import PATIENCE
from .client import SOCKET
from .policycache import ETC
from .session import DEADLINE
from .trail import LONGEST as LINE
from .waiting import SILENCE, WAITING_OF_USER
from .wire import LONGEST

POLICY = f"""
Annotations are a request; {ETC} decides. It and the directories above it have to be root's and not
writable by others, and no symbolic links; a file that is wrong in any way allows nothing (exit
code 18). Where it doesn't exist the built-in policy holds, which `oci-bpf-hook policy show` prints
and is the file to begin with.

It is YAML, without aliases. Rules are tried in order, and the first whose match holds decides
alone. What it allows is a ceiling: a request beyond it is refused with each item that is, or cut
down to it. No rule at all is a refusal.

Where the broker decides, for a user's own containers, what isn't the kernel's word is a claim: no
rule that allows something holds by it.

podman before 4.6 hands the annotations of an image's manifest on as the container's. One that
stands in the image with just that text is taken for the image's, and refused where it makes a
difference, unless image_annotations says otherwise; precreate adds nothing for it in any case. To
ask in spite of it, use the container's name (io.bpffs.profile/NAME), which wins; an annotation
without a text takes the image's away.
"""
CONFINED = """
Masks choose commands and types, and not what a program calls: without more, a program of any type
reaches the kernel, and so the whole host. What a rule allows is therefore confined, unless it says
`confined: false`. The tokens of a confined grant are held by the guard, programs of BPF LSM, which
refuse them CAP_PERFMON and every function of the kernel's (kfunc) that isn't on its list.

A confined request with prog_load is refused where the guard isn't in force; `oci-bpf-hook guard on`
turns it on, as far as the kernel has BPF LSM. One without, for maps and BTF alone, has no need of
it. Program types that take CAP_PERFMON (kprobe, tracepoint, perf_event, raw_tracepoint,
raw_tracepoint_writable, tracing, lsm, struct_ops, ext), syscall, lirc_mode2, types that this
version doesn't know, and the map types struct_ops and insn_array are never given by a confined
rule.

`confined: false` is the administrator's word that whoever matches is trusted with the kernel.
`oci-bpf-hook policy check` says so of each such rule, and more of one that is for everybody, or
that rests on the requester's word or on `rootless`.
"""
BROKER = f"""
To delegate BPF takes CAP_SYS_ADMIN in the initial user namespace, which no user has, nor a hook
at createContainer. The hook asks this service then, at {SOCKET}. It decides by
oci-bpf-hook-policy(5), has the mount made in the namespaces of whoever asks, and sends it back
unattached; the hook attaches it and reads it back.

It is root's, in the initial user namespace. Usually systemd starts it when the first hook asks:
`systemctl enable --now oci-bpf-hook-broker.socket`. By hand it is started without options.

The policy is read again when its file changes. One that isn't in order refuses every request, and
what is wrong with it is in the host's log alone.
"""
WHO_ASKS = """
The kernel's word decides. Whoever has connected is held by the process that it was then; it has
to be in a user namespace below the initial one, with a mount namespace of its own and an id that
is mapped there. It asks for the user who made the outermost of its user namespaces; an id that is
nobody's own is the user's that subuid(5) gives it to. Root's may be for somebody else, as a
set-user-id sandbox makes it: it is root's only if no id of an account or of its subordinate range
is mapped there, else that user's, and nobody's where that may be several. The user's groups are
those of the host's database, and those that the process has brought along.

What the hook tells of the container (its name, image, namespace and pod) is a claim: it is on
record, and a rule that denies may match it, but no rule that allows something holds by it.

For a user's own containers host_network and host_cgroup are true, since users go in and out of
their namespaces with a token in hand. For others they are true unless every process of the user
namespace, and of those within it, says otherwise, and for who asks from one within.

A container that has the socket mounted speaks for whoever made its user namespace. In a rootful
container that is root: don't mount it there.
"""
LIMITS = f"""
A request is one packet of at most {LONGEST} bytes; file descriptors beside it are refused. A
connection may be silent for {SILENCE} seconds, and its request takes at most {DEADLINE}. No user
has more than {WAITING_OF_USER} connections that wait, and half of the requests that are served at
a time. Users have their turns one after the other.

Whoever asks more often than `--rate` says is told so, and whoever connects {PATIENCE} times as
often is dropped without an answer; the log says how many were. That counts the uid by which
somebody connects, and all that subuid(5) gives to one user as one.

What is refused is on record with at most {LINE} bytes of each and {OF_USER} of one user in a
minute, in the audit trail and in the log together; of the others their number is.
"""

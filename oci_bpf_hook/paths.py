"""Every path of the host that is this project's own.

What is others' (the engines' directories, /proc, the host's users) stays with the module that knows
the other.  What `install` makes below a prefix is `installation`'s.
"""

# Where this package is; resources that are no modules lie beside them.
PACKAGE = __file__.rpartition("/")[0]

# The policy: an administrator's, and the one for where there is none, compiled.
POLICY = "/etc/oci-bpf-hook/policy.yaml"
BUILTIN = f"{PACKAGE}/builtin_policy.json"
# Where the audit trail goes unless the policy says otherwise.
AUDIT_TO = "/var/log/oci-bpf-hook/audit.jsonl"

# What lasts until the host is started anew, root's alone to write, and what is in it: the compiled
# policy, the count of refusals on record, the broker's socket, the lock of whoever loads the guard.
RUN = "/run/oci-bpf-hook"
CACHE = "policy.compiled"
REFUSALS = "refusals"
SOCKET = f"{RUN}/broker.sock"
GUARD_LOCK = f"{RUN}/guard.lock"

# The host's bpffs, and the pins of the guard's programs and maps in it.
BPFFS = "/sys/fs/bpf"
PINS = f"{BPFFS}/oci-bpf-hook"
GUARD = f"{PINS}/guard"

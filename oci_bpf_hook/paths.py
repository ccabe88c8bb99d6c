"""The paths on the host that are this project's own.

The paths of others (engines' directories, /proc, /etc/subuid) are in the modules that deal with
them, and those that `install` makes below a prefix are in `install.layout`.
"""

# The package's directory, which also has the files that its modules read.
PACKAGE = __file__.rpartition("/")[0]

# The administrator's policy, and the compiled built-in one for a host without it.
POLICY = "/etc/oci-bpf-hook/policy.yaml"
BUILTIN = f"{PACKAGE}/builtin_policy.json"
# Where the audit trail goes unless the policy says otherwise.
AUDIT_TO = "/var/log/oci-bpf-hook/audit.jsonl"

# The directory that everybody may enter and only root can write; a reboot removes it, and whoever
# needs it makes it (`whole.make_directory`).  In it are the files CACHE, the compiled policy, and
# REFUSALS, the count of each user's refusals (`audit.allowance`); the broker's socket; and the
# locks of those who compile the policy (`.lock`) or load the guard.
RUN = "/run/oci-bpf-hook"
CACHE = "policy.compiled"
REFUSALS = "refusals"
SOCKET = f"{RUN}/broker.sock"
GUARD_LOCK = f"{RUN}/guard.lock"

# What the NRI plugin keeps where its engine is: the mounts for containers that are being created,
# and the file that the one plugin of a host locks.
PODS = f"{RUN}/nri"
PLUGIN_LOCK = f"{RUN}/nri.lock"

# The host's bpffs, and the pins of the guard's programs and maps in it.
BPFFS = "/sys/fs/bpf"
PINS = f"{BPFFS}/oci-bpf-hook"
GUARD = f"{PINS}/guard"

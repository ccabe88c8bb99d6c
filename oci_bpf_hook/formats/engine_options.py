"""The options of `podman run`, `podman create` and `docker run`: which of them take a value.

From the programs' own help: podman 4.3.1 and 5.8.6, Docker 28.2.2.  No option takes a value in one
of them and none in another.
"""

# Before the subcommand, and podman's also after it.
_GLOBAL_FLAGS = """
    debug help noout remote syslog tls tlsverify transient-store version
"""
_GLOBAL_VALUED = """
    cdi-spec-dir cgroup-manager config conmon connection context events-backend hooks-dir host
    identity imagestore log-level module namespace network-cmd-path network-config-dir out root
    runroot runtime runtime-flag ssh storage-driver storage-opt tls-ca tls-cert tls-key tlscacert
    tlscert tlskey tmpdir url volumepath
"""
GLOBAL_SHORT = {
    "c": "connection",
    "D": "debug",
    "H": "host",
    "l": "log-level",
    "r": "remote",
    "v": "version",
}
_FLAGS = """
    detach disable-content-trust env-host help http-proxy init interactive no-healthcheck
    no-hostname no-hosts oom-kill-disable passwd privileged publish-all quiet read-only
    read-only-tmpfs replace rm rmi rootfs sig-proxy tls-verify tty unsetenv-all use-api-socket
"""
# With a few other names that these programs take as well and don't show.
_VALUED = """
    add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop
    cert-dir cgroup-conf cgroup-parent cgroupns cgroups chrootdirs cidfile conmon-pidfile
    cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus
    cpuset-cpus cpuset-mems creds decryption-key detach-keys device device-cgroup-rule
    device-read-bps device-read-iops device-write-bps device-write-iops dns dns-opt dns-option
    dns-search domainname entrypoint env env-file env-merge expose gidmap gpus group-add
    group-entry health-cmd health-interval health-log-destination health-max-log-count
    health-max-log-size health-on-failure health-retries health-start-interval health-start-period
    health-startup-cmd health-startup-interval health-startup-retries health-startup-success
    health-startup-timeout health-timeout healthcheck-command healthcheck-interval
    healthcheck-retries healthcheck-start-period healthcheck-timeout hostname hosts-file hostuser
    image-volume init-ctr init-path io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory
    label label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation
    memory-swap memory-swappiness mount name net net-alias network network-alias oom-score-adj os
    override-arch override-os override-variant passwd-entry personality pid pidfile pids-limit
    platform pod pod-id-file preserve-fd preserve-fds publish pull rdt-class requires restart
    retry retry-delay runtime sdnotify seccomp-policy secret security-opt shm-size
    shm-size-systemd signature-policy stop-signal stop-timeout storage-opt subgidname subuidname
    sysctl systemd timeout tmpfs tz uidmap ulimit umask unsetenv user userns uts variant volume
    volume-driver volumes-from workdir
"""
SHORT = {
    "a": "attach",
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "P": "publish-all",
    "p": "publish",
    "q": "quiet",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}

GLOBAL_FLAGS, GLOBAL_VALUED = frozenset(_GLOBAL_FLAGS.split()), frozenset(_GLOBAL_VALUED.split())
FLAGS, VALUED = frozenset(_FLAGS.split()), frozenset(_VALUED.split())

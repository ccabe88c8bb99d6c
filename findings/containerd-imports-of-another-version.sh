#!/bin/sh
# containerd 2.1.9 (Debian sid, 2.1.9+ds1-5, November 2026).
#
# Its config.toml may be of version 2 or 3 and so may the files that it imports, but not of
# different ones:
# - A config.toml of version 2 that imports a file of version 3 loses its own CRI settings, such as
#   SystemdCgroup, since the whole is taken for version 3.  containerd starts, and
#   warns: Ignoring unknown key in TOML for plugin ... plugin=io.containerd.grpc.v1.cri
# - A runtime in a file of version 2 that a config.toml of version 3 imports isn't there, and nothing
#   says so.
# An import of the same version adds its runtime, and everything else stays.  Seen:
#   version 2 imports 2: SystemdCgroup = true, runtime other
#   version 2 imports 3: SystemdCgroup = false, runtime other, 4 warnings
#   version 3 imports 2: SystemdCgroup = true
#   version 3 imports 3: SystemdCgroup = true, runtime other
#
# Takes root, mmdebstrap, Debian's mirror and about a minute.  Exits with 0 if it is as above.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mmdebstrap --quiet --variant=apt '--aptopt=Acquire::Check-Valid-Until "false"' \
    --include=containerd=2.1.9+ds1-5 sid "$dir/root"
mkdir -p "$dir/root/etc/containerd/conf.d"

plugin() { # VERSION: what the plugin with the runtimes is called there
    if [ "$1" = 2 ]; then echo io.containerd.grpc.v1.cri; else echo io.containerd.cri.v1.runtime; fi
}

dump() { # VERSION OF-THE-IMPORT: a line about what containerd makes of both
    cat >"$dir/root/etc/containerd/config.toml" <<EOF
version = $1
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."$(plugin "$1")".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."$(plugin "$1")".containerd.runtimes.runc.options]
SystemdCgroup = true
EOF
    cat >"$dir/root/etc/containerd/conf.d/more.toml" <<EOF
version = $2
[plugins."$(plugin "$2")".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"
EOF
    chroot "$dir/root" containerd config dump >"$dir/config" 2>"$dir/warnings"
    printf 'version %s imports %s: %s' "$1" "$2" "$(grep -o 'SystemdCgroup = .*' "$dir/config")"
    if grep -q 'runtimes\.other\]' "$dir/config"; then printf ', runtime other'; fi
    if [ -s "$dir/warnings" ]; then
        printf ', %s warnings' "$(grep -c 'Ignoring unknown key in TOML' "$dir/warnings")"
    fi
    echo
}

for versions in '2 2' '2 3' '3 2' '3 3'; do
    # shellcheck disable=SC2086  # Two words.
    dump $versions
done | tee "$dir/seen"
sed -n 's/^#   version/version/p' "$0" | diff - "$dir/seen"

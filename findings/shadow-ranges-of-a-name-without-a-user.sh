#!/bin/sh
# shadow 4.20.3 (Debian sid, 1:4.20.3-1) against 4.17.4 (Debian 13, 1:4.17.4-2+deb13u1), Nov 2026.
#
# A line of /etc/subuid for a name that is no user in passwd used to give that name its range.  Since
# 4.20 libsubid finds none, and podman's --userns=auto, which asks for the range of `containers`,
# fails for root with "no subuid ranges found".  With a user of that name all is as it was.  Seen:
#   trixie: 0: containers 2147483648 65536
#   sid: Error fetching ranges
#   sid with a user: 0: containers 2147483648 65536
#
# Takes root, mmdebstrap, Debian's mirror and about a minute.  Exits with 0 if it is as above.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

root() { # SUITE VERSION: a root file system with the range and without the user
    mmdebstrap --quiet --variant=apt '--aptopt=Acquire::Check-Valid-Until "false"' \
        "--include=uidmap=$2,passwd" "$1" "$dir/$1"
    echo containers:2147483648:65536 >"$dir/$1/etc/subuid"
}

ask() { # SUITE
    chroot "$dir/$1" getsubids containers 2>&1 || true
}

root trixie 1:4.17.4-2+deb13u1
root sid 1:4.20.3-1
{
    echo "trixie: $(ask trixie)"
    echo "sid: $(ask sid)"
    chroot "$dir/sid" /usr/sbin/useradd --system containers
    echo "sid with a user: $(ask sid)"
} | tee "$dir/seen"
sed -n 's/^#   //p' "$0" | diff - "$dir/seen"

"""Who needs the broker on this host: users with a rootless podman, and a hook without privilege.

doctor may run as root, so below a user's home it looks at names alone and reads no file: the user
decides what is in the files.
"""

import json
import os
import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..users import SUBUID
from .directories import ETC, SHARED
from .engines import Engine, hooks_directories

_STAGE = "createContainer"
_NAME = "oci-bpf-hook"
# What a rootless podman, buildah or CRI-O leaves below a home: images, and configuration with the
# user's own hooks.d.
_IN_HOME = (".local/share/containers/storage", ".config/containers")
# What it has while it runs: the files of podman up to 3, and of podman 4 and later.
_RUNNING = ("/run/user/{}/containers", "/run/user/{}/libpod")


def signs(engines: Sequence[Engine]) -> Iterator[str]:
    """What on this host needs the broker, each as the end of a sentence about rootless engines."""
    for path in _at_create_container(engines):
        yield f"{path} runs the hook at {_STAGE}, where it has no privilege"
    for account in _accounts():
        home = account.pw_dir
        places = [
            *(os.path.join(home, name) for name in _IN_HOME if home.strip("/")),
            *(place.format(account.pw_uid) for place in _RUNNING),
        ]
        found = next(filter(os.path.lexists, places), None)
        if found:
            yield f"{account.pw_name} has a rootless one, whose files are in {found}"


def _at_create_container(engines: Sequence[Engine]) -> Iterator[str]:
    directories = [SHARED, ETC, *(one for engine in engines for one in hooks_directories(engine))]
    for directory in dict.fromkeys(directories):
        for path in sorted(Path(directory).glob("*.json")):
            try:
                config = json.loads(path.read_bytes())
                ours = os.path.basename(config["hook"]["path"]) == _NAME
                stages = config["stages"]
            except (OSError, ValueError, RecursionError, KeyError, TypeError):
                continue  # The check of the directory reports that.
            if ours and isinstance(stages, list) and _STAGE in stages:
                yield str(path)


def _accounts() -> Iterator[pwd.struct_passwd]:
    """Every account but root's: those that are listed, and those with subordinate ids.

    A directory service doesn't list its accounts, but a rootless engine's users have such ids.
    """
    found = {account.pw_name: account for account in pwd.getpwall()}
    try:
        lines = Path(SUBUID).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for name in {line.partition(":")[0] for line in lines} - {"", *found}:
        try:
            found[name] = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except (KeyError, OverflowError):  # Such as podman's "containers", which is no account.
            continue
    return (account for account in found.values() if account.pw_uid)

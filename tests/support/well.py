"""A host on which doctor finds everything well, until a test changes something."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.podman import seccomp_profile
from tests.support.scratch import LAUNCHER, install
from tests.support.situation import apart, findings, found_by, not_well

HOOK_JSON = LAUNCHER.with_suffix(".json")
NO_RULE = "version: 1\nrules: []\n"
# Without the users of this host, who may have a rootless podman.
PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
SUBORDINATE = "containers:2147483648:2147483647\n"


class Host:
    """A host on which everything is well, for one run of doctor; what a test changes isn't.

    `files` are laid over the host's own in a mount namespace of that run, by their paths;
    `containers` is what /usr/share/containers is there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.files: dict[str, str] = dict.fromkeys(("/etc/subuid", "/etc/subgid"), SUBORDINATE)
        self.files["/etc/passwd"] = PASSWD
        # The paths of files that are programs.
        self.programs: set[str] = set()
        self.launcher = install(directory / "libexec")
        self.containers = directory / "containers"
        shutil.copytree("/usr/share/containers", self.containers)
        (self.containers / "seccomp.json").write_text(json.dumps(seccomp_profile()))
        self.json = self.containers / "oci" / "hooks.d" / HOOK_JSON.name
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.config = json.loads(HOOK_JSON.read_text())
        self.config["hook"]["path"] = str(self.launcher)
        self.write()

    def write(self) -> None:
        self.json.write_text(json.dumps(self.config))

    def doctor(
        self,
        *prefix: str,
        first: str = "",
        env: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> list[dict[str, str]]:
        """What doctor finds there; `first` is shell that runs before, in the same namespace."""
        # The session's /etc is shared, and this one is thrown away.
        lines = [
            "mount -t tmpfs none /mnt && mkdir /mnt/etc /mnt/work",
            "mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc",
            f"mount --bind {self.containers} /usr/share/containers",
        ]
        for number, (name, text) in enumerate(self.files.items()):
            source = self._directory / str(number)
            source.write_text(text)
            source.chmod(0o755 if name in self.programs else 0o644)
            lines.append(f"mkdir -p {os.path.dirname(name)} && touch {name}")
            lines.append(f"mount --bind {source} {name}")
        lines.append(first)
        if not (prefix or user):
            return found_by(apart("\n".join(lines), "doctor", "--json", env=env))
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        script = "\n".join([*lines, 'exec "$@"'])
        inside = ["unshare", "--mount", "sh", "-ec", script, "sh"]
        return findings(prefix=[*inside, *prefix, *(become if user else ())], env=env)


def causes(found: list[dict[str, str]]) -> set[str]:
    """The names of what isn't well, each with words and something to do."""
    wrong = not_well(found)
    assert all(one["why"] and one["fix"] for one in wrong.values()), wrong
    return set(wrong)

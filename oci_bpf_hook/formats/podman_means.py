"""Reads what podman's options give a container, as podman run and as Quadlet spell them."""

from collections.abc import Iterable, Sequence

from ..text.places import Spot
from .means import PODMAN, Means, Mount, is_our_device, is_shared, means, volume

# For each key of a [Container] section the option that Quadlet turns it into.
QUADLET = {
    "AddDevice": "--device",
    "DropCapability": "--cap-drop",
    "Environment": "--env",
    "EnvironmentFile": "--env-file",
    "EnvironmentHost": "--env-host",
    "Mount": "--mount",
    "User": "--user",
    "Volume": "--volume",
}
# Those whose value is a list of words.
LISTS = ("DropCapability", "Environment")
_SHORT = {"-e": "--env", "-u": "--user", "-v": "--volume"}
_VALUED = frozenset(QUADLET.values()) - {"--env-host"}
_FLAGS = ("--env-host", "--privileged")
_NO = ("false", "no", "0", "off")


class Options:
    """What options say of a container's means, as they are added one by one."""

    def __init__(self) -> None:
        self._dropped: list[str] = []
        self._environment: dict[str, object] = {}
        self._mounts: list[Mount] = []
        self._privileged = False
        self._unread = False
        self._user: tuple[str, Spot] | None = None

    def add_arguments(self, words: Sequence[str], spot: Spot) -> None:
        """Add the options among the `words` of a command line, which is at `spot`."""
        rest = iter(words)
        for word in rest:
            option, equals, value = word.partition("=")
            option = _SHORT.get(option, option)
            if option in _FLAGS:
                self.add(option, value or "true", spot)
            elif option in _VALUED:
                self.add(option, value if equals else next(rest, ""), spot)

    def add(self, option: str, value: str, spot: Spot) -> None:
        """Add one option with its value, which is at `spot`."""
        if option == "--cap-drop":
            self._dropped += value.split(",")
        elif option == "--env":
            key, equals, text = value.partition("=")
            self._environment[key] = text if equals else None
        elif option == "--user":
            self._user = value, spot
        elif option == "--volume":
            self._mounts.append(volume(value, spot))
        elif option == "--mount":
            self._mounts += _mounts(value, spot)
        elif option == "--device":
            self._unread |= is_our_device(value)
        elif option == "--privileged":
            self._privileged = value.lower() not in _NO
        else:
            self._unread |= value.lower() not in _NO

    def means(self, capabilities: Iterable[str], here: Spot) -> Means:
        """The means of the container at `here`, to which these `capabilities` are added."""
        user, spot = self._user or (None, None)
        return means(
            capabilities=capabilities,
            dropped=self._dropped,
            privileged=self._privileged,
            spot=here,
            user=user,
            user_spot=spot,
            engine=PODMAN,
            environment=self._environment,
            unread=self._unread,
            mounts=self._mounts,
        )


def _mounts(text: str, spot: Spot) -> Iterable[Mount]:
    """The mount that --mount type=TYPE,source=SOURCE,target=PATH,... describes."""
    given = dict(word.strip().partition("=")[::2] for word in text.split(","))
    path = next((given[key] for key in ("target", "destination", "dst") if key in given), None)
    source = given.get("source", given.get("src", ""))
    if path and given.get("type", "volume") in ("bind", "volume", "glob", "image"):
        yield Mount(
            path=path,
            shared=is_shared([given.get("bind-propagation")]),
            source=source if source.startswith("/") else None,
            spot=spot,
        )

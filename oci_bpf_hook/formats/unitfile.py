"""Reads the sections, keys and values of systemd's unit files, which Quadlet's files are too."""

import shlex
from collections.abc import Iterable, Iterator

from ..errors import quote
from ..text.places import Fault, Spot, fault
from ..values import Value


class Setting(Value):
    """A line KEY=VALUE of a section, with its continuation lines; `spot` is where the value is."""

    __slots__ = ("key", "section", "spot", "value")
    section: str
    key: str
    value: str
    spot: Spot


def settings(text: str, faults: list[Fault]) -> Iterator[Setting]:
    """The settings of the unit file `text`, in order; other lines are added to `faults`."""
    section = ""
    key = ""
    value: list[str] = []
    spot = Spot(line=1, column=1)
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.strip()
        if key:
            # A comment between continuation lines is skipped (systemd.syntax(7)).
            if plain[:1] in ("#", ";"):
                continue
            value.append(plain.removesuffix("\\").rstrip())
        elif not plain or plain[0] in "#;":
            continue
        elif plain[0] == "[":
            section = plain.strip("[]")
            continue
        else:
            key, equals, rest = (part.strip() for part in line.partition("="))
            if not equals or not key:
                faults.append(
                    fault(Spot(line=number, column=1), f"{quote(plain)} should be KEY=VALUE")
                )
                key = ""
                continue
            column = line.index("=") + 1
            spot = Spot(line=number, column=column + len(line[column:]) - len(rest) + 1)
            if rest:
                spot = Spot(line=number, column=line.index(rest, column) + 1)
            value = [rest.removesuffix("\\").rstrip()]
        if not plain.endswith("\\"):
            yield Setting(section=section, key=key, value=" ".join(value), spot=spot)
            key = ""
    if key:
        yield Setting(section=section, key=key, value=" ".join(value), spot=spot)


def in_force(given: Iterable[Setting]) -> list[Setting]:
    """Those of the settings `given` that aren't taken back by an empty value after them."""
    found = list(given)
    emptied = {(one.section, one.key): at for at, one in enumerate(found) if not one.value}
    return [one for at, one in enumerate(found) if at > emptied.get((one.section, one.key), -1)]


def words(setting: Setting, faults: list[Fault]) -> list[str]:
    """The words of a value, unquoted."""
    try:
        return shlex.split(setting.value)
    except ValueError:
        faults.append(fault(setting.spot, f"{quote(setting.value)} ends within quotes"))
        return []

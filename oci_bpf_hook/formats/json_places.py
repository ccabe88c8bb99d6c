"""Finds the line and column of each value in a JSON text; `text.strict_json` reads the values."""

import json
import re

from ..text.places import Place, Spot, spot_of

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


def places(text: str) -> dict[Place, Spot]:
    """The spot of each value in the valid JSON `text`, by the path to it."""
    found: dict[Place, Spot] = {}
    # For each open object or array the key, or the index of the item, that comes next.
    path: list[str | int] = []
    opened: list[str] = []
    key: str | None = None
    line, start, at = 1, 0, 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        line += text.count("\n", at, token.start())
        start = max(start, text.rfind("\n", at, token.start()) + 1)
        at = token.start()
        if word in "]}":
            opened.pop()
            path.pop()
        elif word == ",":
            last = path[-1]
            if isinstance(last, int):
                path[-1] = last + 1
            key = None
        elif word == ":":
            pass
        elif opened and opened[-1] == "{" and key is None:
            key = json.loads(word, strict=False)
            path[-1] = key
        else:
            found[tuple(path)] = Spot(line=line, column=at - start + 1)
            if word in "[{":
                opened.append(word)
                path.append(0 if word == "[" else "")
                key = None
            continue
    return found


def spot_of_error(text: str) -> tuple[Spot, str]:
    """The first spot at which `text` isn't JSON, and why."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return spot_of(text, error.pos), error.msg
    except (ValueError, RecursionError):
        pass
    return Spot(line=1, column=1), "it can't be read"

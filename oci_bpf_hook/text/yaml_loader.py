"""PyYAML's safe loader, and what keeps it from ending the process."""

from typing import Any

import yaml

# libyaml's, ten times as fast, where PyYAML was built with it.
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def too_deep(text: bytes, deepest: int) -> yaml.Mark | None:
    """Where data in `text` is nested deeper than `deepest`, None if it isn't.

    PyYAML 6.0 makes nodes by recursion in C, which ends the process without a word.  Raises
    yaml.YAMLError.
    """
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            mark: yaml.Mark = event.start_mark
            return mark
    return None

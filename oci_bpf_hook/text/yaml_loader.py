"""PyYAML's safe loader, with a check for nesting that would make it crash."""

import yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# libyaml's loader is ten times as fast, but PyYAML may have been built without it.
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def too_deep(text: bytes, deepest: int) -> yaml.Mark | None:
    """The first place in `text` that is nested deeper than `deepest`, or None.

    PyYAML 6.0 makes nodes by recursion in C, and text that is nested too deeply ends the process
    without a message.  Raises yaml.YAMLError.
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

"""What is built on the host for cases, which find it in `context.files` by these names."""

from collections.abc import Callable
from functools import partial
from typing import Final

from tests.support.bpf import compiled

from .inside.profiles import OBJECTS

FILES: Final[dict[str, Callable[[], bytes]]] = {
    f"{name}.o": partial(compiled, name) for names in OBJECTS.values() for name in names
}

"""What is built on the host for cases, which find it in `context.files` by these names."""

from collections.abc import Callable
from typing import Final

FILES: Final[dict[str, Callable[[], bytes]]] = {}

"""What is built on the host for cases, which find it in `context.files` by these names."""

from collections.abc import Callable
from functools import partial
from typing import Final

from tests.support import shim
from tests.support.bpf import compile_text, compiled

from .inside import reads
from .inside.profiles import OBJECTS

_SECTIONS: Final = reads.ALIKE | reads.OTHERS
_MADE: Final[dict[str, tuple[Callable[[str], bytes], str]]] = {
    **{f"{name}.o": (compiled, name) for names in OBJECTS.values() for name in names},
    **{f"reads-{name}.o": (compile_text, reads.SOURCE % _SECTIONS[name]) for name in _SECTIONS},
}
FILES: Final[dict[str, Callable[[], bytes]]] = {
    name: partial(make, of) for name, (make, of) in _MADE.items()
}
FILES["shim.so"] = lambda: shim.library().read_bytes()

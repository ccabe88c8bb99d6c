"""The options --annotation and --state, which give the request that a command is about."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack

from ...delegation.annotations import PREFIX, Request, parse
from ...delegation.problems import joined
from ...errors import BAD_STATE, USAGE, HookError, quote
from ...oci.state import annotations_of
from ...text.strict_json import load_json
from .table import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

# The largest file that is read; a list of all pods of a cluster is smaller.
_MOST = 64 << 20
ARGUMENTS = (
    argument(
        *("--annotation",),
        action="append",
        metavar="KEY=VALUE",
        help=f"an annotation, such as {PREFIX}delegate_cmds=map_create; may be repeated",
        exclusive="request",
        one_of_them=True,
    ),
    argument(
        *("--state",),
        metavar="FILE",
        help="an OCI state, as a hook gets it; - means stdin",
        exclusive="request",
        one_of_them=True,
    ),
)


def annotations(options: argparse.Namespace) -> dict[str, str]:
    """The annotations that the command line gives.  Raises HookError."""
    if options.state:
        return annotations_of(read_state(options.state))
    return dict(pair(text) for text in options.annotation)


def read_state(path: str) -> object:
    """The decoded JSON of the state in the file `path`, - for stdin.  Raises HookError."""
    try:
        return load_json(read(path))
    except ValueError as error:
        raise HookError(BAD_STATE, f"{path}: {error}") from None


def pair(text: str) -> tuple[str, str]:
    """The key and the value in KEY=VALUE.  Raises HookError (USAGE)."""
    key, equals, value = text.partition("=")
    if not equals:
        raise HookError(USAGE, f"{quote(text)} should be KEY=VALUE")
    return key, value


def read(path: str) -> bytes:
    """The content of the file `path`, - for stdin.  Raises HookError (USAGE)."""
    name = "standard input" if path == "-" else path
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            return whole_of(file, name)
    except OSError as error:
        raise HookError(USAGE, f"{name}: {error.strerror}") from None


def whole_of(file: "BinaryIO", name: str) -> bytes:
    """The whole content of `file`, called `name`.  Raises OSError, and HookError (USAGE)."""
    data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise HookError(USAGE, f"{name} is larger than {_MOST >> 20} MiB; no request is that large")
    return data


def request(
    annotations: dict[str, str],
    name: str | None = None,
    *,
    judge: Callable[[Request], object] = lambda _: None,
) -> Request:
    """What the `annotations` ask for.  Raises HookError, also if they ask for nothing.

    `name` is the container's name if the annotations don't have it.  If they are wrong, `judge` is
    called to raise HookError for unknown names too, so that all problems are reported at once.
    """
    try:
        found = parse(annotations, lambda: name)
    except HookError as error:
        raise joined(error, judge) from None
    if found is None:
        raise HookError(
            USAGE, f"nothing is asked for: there is no {PREFIX}delegate_* among the annotations"
        )
    return found

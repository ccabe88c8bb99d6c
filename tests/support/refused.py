"""What the kernel refuses."""

from collections.abc import Callable

import pytest


def refused(number: int, call: Callable[[], object]) -> str:
    """What is said when `call` fails with the error `number`, as it has to."""
    with pytest.raises(OSError, match=r"^\[Errno") as caught:
        call()
    assert caught.value.errno == number
    return str(caught.value)

"""Annotations, and what the parser of annotations makes of them: a request, or its problems."""

from collections.abc import Callable, Mapping

import pytest

from oci_bpf_hook.delegation.annotations import PREFIX, Request, parse
from oci_bpf_hook.errors import BAD_ANNOTATION, HookError

CRI_O = "io.kubernetes.container.name"
CONTAINERD = "io.kubernetes.cri.container-name"


def nobody() -> str | None:
    raise AssertionError("nothing here needs the container's name")


def io(**given: str) -> dict[str, str]:
    return {PREFIX + key: text for key, text in given.items()}


def understand(
    annotations: Mapping[str, str], name: Callable[[], str | None] = nobody
) -> Request | None:
    return parse(annotations, name)


def request(annotations: Mapping[str, str], name: Callable[[], str | None] = nobody) -> Request:
    found = parse(annotations, name)
    assert found is not None
    return found


def items(text: str) -> tuple[str, ...]:
    return request(io(delegate_cmds=text)).lists["delegate_cmds"]


def problems(
    annotations: Mapping[str, str], name: Callable[[], str | None] = nobody
) -> tuple[str, ...]:
    with pytest.raises(HookError) as caught:
        parse(annotations, name)
    assert caught.value.code == BAD_ANNOTATION
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    return caught.value.sentences


def problem(annotations: Mapping[str, str], name: Callable[[], str | None] = nobody) -> str:
    (only,) = problems(annotations, name)
    return only

"""check of all pods of a cluster: none are too many, and twice as many take twice as long."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.support.command import answer, command

# So much of a pod is of no interest to us, as in what kubectl prints of a running one.
_STATUS = [
    {"type": f"Condition{number}", "status": "True", "lines": [1, 2]} for number in range(40)
]


def pod(number: int) -> dict[str, Any]:
    """A pod, whose name has the `number` in it, with some 300 values."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"agent-{number}",
            "annotations": {
                "io.bpffs.delegate_cmds": "map_create",
                "io.bpffs.delegate_maps": "hash",
            },
        },
        "spec": {
            "hostUsers": False,
            "containers": [
                {
                    "name": "agent",
                    "securityContext": {"capabilities": {"add": ["BPF"]}},
                }
            ],
        },
        "status": {"conditions": _STATUS},
    }


def listed(count: int) -> dict[str, Any]:
    items = [pod(number) for number in range(count)]
    # In a copy nothing is there twice, and so YAML needs no aliases.
    found: dict[str, Any] = json.loads(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    return found


FORMS: dict[str, Callable[[int], str]] = {
    "yaml": lambda count: yaml.dump(listed(count), Dumper=yaml.CSafeDumper),
    "documents": lambda count: yaml.dump_all(listed(count)["items"], Dumper=yaml.CSafeDumper),
    "json": lambda count: json.dumps(listed(count), indent=1),
    "line": lambda count: json.dumps(listed(count)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_isnt_too_large(form: str) -> None:
    code, found = answer("check", "--file", "-", stdin=FORMS[form](500))
    assert (code, len(found["containers"])) == (0, 500)
    assert found["containers"][499]["name"] == "Pod agent-499, container agent"


@pytest.mark.parametrize("form", FORMS)
def test_the_time_grows_with_the_number(form: str) -> None:
    """Four times as many pods take four times as long, and not sixteen times."""

    def took(text: str) -> float:
        start = time.process_time()
        assert command("check", "--file", "-", stdin=text).returncode == 0
        return time.process_time() - start

    small, large = FORMS[form](100), FORMS[form](400)
    rounds = [(took(large), took(small)) for _ in range(4)]
    assert min(one / other for one, other in rounds) < 6

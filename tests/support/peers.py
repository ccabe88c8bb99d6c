"""Users' processes that ask a broker, and its answers, held against the schema of the wire."""

import json
from typing import Any

import jsonschema

from tests.support.broker import ALONE, Peer
from tests.support.places import ROOT
from tests.support.scratch import io
from tests.support.users import User

ASK = io(delegate_cmds="map_create:prog_load")
SCHEMA = json.loads((ROOT / "schema" / "wire.schema.json").read_text())


def by(user: User) -> Peer:
    """A process in a user and mount namespace that `user` has made."""
    return Peer(user.running(ALONE))


def valid(message: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft202012Validator(SCHEMA).validate(message)
    return message


def refused(answer: dict[str, Any], code: int, *words: str) -> None:
    valid(answer)
    assert answer["code"] == code, answer
    said = " ".join(answer["problems"])
    assert [word for word in words if word not in said] == []
    assert "Traceback" not in said
    assert "oci_bpf_hook/" not in said
    assert str(ROOT) not in said

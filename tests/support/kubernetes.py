"""The manifests of contrib/kubernetes, and the admission rules as the API server evaluates them."""

from collections.abc import Mapping
from typing import Any

import celpy
import yaml
from celpy.adapter import json_to_cel

from tests.support.places import ROOT

FOLDER = ROOT / "contrib" / "kubernetes"
ADMISSION, SERVICE_ACCOUNT = "admission.yaml", "service-account.yaml"
# The first with ValidatingAdmissionPolicy for good, and the last that the validator has.
RELEASES = ("1.30", "1.37")
ASK = {"io.bpffs.profile": "socket-filter"}


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


RULES = documents(ADMISSION)[0]["spec"]
ACCOUNTS = documents(SERVICE_ACCOUNT)[0]["spec"]


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return program.evaluate({name: json_to_cel(value) for name, value in names.items()})


def admit(
    pod: dict[str, Any],
    old: dict[str, Any] | None = None,
    rules: dict[str, Any] = RULES,
    *,
    kind: str = "Pod",
) -> list[str]:
    """What is said against the pod, or another object, as the API server goes about it."""
    names: dict[str, Any] = {
        "object": pod,
        "oldObject": old,
        "request": {
            "operation": "UPDATE" if old else "CREATE",
            "namespace": pod["metadata"]["namespace"],
            "kind": {"group": "", "version": "v1", "kind": kind},
        },
    }
    if not all(evaluate(one["expression"], names) for one in rules["matchConditions"]):
        return []
    names["variables"] = {
        one["name"]: evaluate(one["expression"], names) for one in rules["variables"]
    }
    return [
        one.get("message") or str(evaluate(one["messageExpression"], names))
        for one in rules["validations"]
        if not evaluate(one["expression"], names)
    ]

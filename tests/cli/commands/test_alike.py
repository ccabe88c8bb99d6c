"""check of containers that are alike says of each what it says of that one alone."""

from itertools import cycle, product

import pytest

from tests.support.command import answer
from tests.support.policy import EVERYTHING, in_force

POD = """\
---
apiVersion: v1
kind: Pod
metadata:
  name: NAME
  annotations: {io.bpffs.delegate_cmds: "map_create prog_load", io.bpffs.delegate_maps: hash}
spec:
  hostUsers: false
  containers:
    - name: agent
      image: IMAGE
      securityContext: {capabilities: {add: [BPF]}}
    - name: other
"""
CHANGES = [
    ("", ""),
    ("hash", "array"),
    ("hash", "hsah"),
    ("hash}", "hash, other: x}"),
    ("map_create", "map_create  map_create"),
    ("hash}", "hash, io.bpffs.delegate_maps/other: array}"),
    ("  hostUsers: false\n", ""),
    ("BPF]", "CHOWN]"),
    ("add", "drop"),
    ("metadata:\n", "metadata: \n\n"),
    ("annotations: {", "annotations:   {"),
    ("- name: other", "- name: third"),
]
NAMES = ["web-1", "web-10", "hash"]
POLICIES = {
    "everything": EVERYTHING,
    "nothing": "version: 1\nrules: []\n",
    "names": EVERYTHING.replace("everything", "ones").replace(
        "    allow:", '    match: {pod: ["web-1*", a]}\n    allow:'
    ),
    "images": EVERYTHING.replace("    allow:", "    match: {image: b}\n    allow:"),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_each_alone(policy: str) -> None:
    pods = [
        POD.replace(*change).replace("NAME", name).replace("IMAGE", image)
        for (change, name), image in zip(product(CHANGES, NAMES), cycle("ab"))
    ]
    with in_force(POLICIES[policy]):
        together = answer("check", "--file", "-", stdin="".join(pods))[1]["containers"]
        before = 0
        alone = []
        for pod in pods:
            alone += answer("check", "--file", "-", stdin="\n" * before + pod)[1]["containers"]
            before += pod.count("\n")
    assert len(together) == len(pods) * 2
    assert together == alone

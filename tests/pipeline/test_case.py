"""What is on record of a request, through the launcher: the log, the audit trail, and both."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

from oci_bpf_hook import syslog as module
from oci_bpf_hook.audit import allowance
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_POLICY,
    NO_USER_NAMESPACE,
    REFUSED,
    UNKNOWN_NAME,
    USAGE,
    HookError,
)
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.pipeline import outcomes
from oci_bpf_hook.pipeline.case import Case
from oci_bpf_hook.pipeline.outcomes import LONGEST
from oci_bpf_hook.policy.decide import Decision
from oci_bpf_hook.policy.store import cache
from oci_bpf_hook.syslog import ERROR, INFO
from tests.support.places import ROOT
from tests.support.policy import AUDIT, EVERYTHING, POLICY, audited, in_force, write
from tests.support.scratch import Scratch, assert_failed, run_hook
from tests.support.subjects import subject as asker
from tests.support.syslog import DevLog

SCHEMA = json.loads((ROOT / "schema" / "audit.schema.json").read_text())
ENUMS = kernel.enums(KINDS)
CMDS = {"io.bpffs.delegate_cmds": "map_create"}
ALLOW = """\
version: 1
audit: {{to: {to}}}
rules:
- name: {name}
  allow: {{confined: false, delegate_cmds: {cmds}}}
"""


def test_each_outcome_is_a_line_of_the_audit_trail() -> None:
    before = len(audited())
    with Scratch() as container:
        container.hook(CMDS)
        # Just that is there already: nothing is decided, and nothing recorded.
        container.hook(CMDS)
        container.hook({"io.bpffs.delegate_cmd": "x"})
        container.hook({"io.bpffs.delegate_cmds": "x"})
    with Scratch(user=False) as container:
        container.hook(CMDS)
    lines = audited()[before:]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert [(line["outcome"], line["code"]) for line in lines] == [
        ("granted", 0),
        ("refused", BAD_ANNOTATION),
        ("refused", UNKNOWN_NAME),
        ("refused", NO_USER_NAMESPACE),
    ]
    assert lines[0]["granted"] == {"delegate_cmds": "map_create"}
    assert lines[0]["rule"] == "everything"
    assert all(line["container"] == "scratch" for line in lines)


def test_the_engine_is_the_administrator_s_word() -> None:
    """--engine in the hook's JSON wins over the policy, and no annotation says it."""
    namespace = "io.kubernetes.pod.namespace"
    asked = CMDS | {namespace: "monitoring", "io.container.manager": "cri-o"}
    with Scratch() as container:
        state = json.dumps(container.state(asked))
        text = "engine: containerd\n" + ALLOW.format(
            to="/var/log/oci-bpf-hook/audit.jsonl", name="n", cmds="[any]"
        ).replace("  allow", "  match: {namespace: monitoring}\n  allow")
        with in_force(text):
            assert run_hook(state).returncode == REFUSED
            assert audited()[-1]["engine"] == "containerd"
            assert run_hook(state, "--engine", "podman").returncode == REFUSED
            assert run_hook(state, "--engine", "lxc").returncode == USAGE
            assert (audited()[-1]["code"], audited()[-1]["engine"]) == (USAGE, None)
            assert run_hook(state, "--engine", "cri-o").returncode == 0
    line = audited()[-1]
    assert (line["engine"], line["requester"]["namespace"]) == ("cri-o", "monitoring")


def test_nobody_fills_the_disk() -> None:
    many = ":".join(str(number) for number in range(100_000))
    hostile = {f"io.bpffs.x{number}": "x" for number in range(10_000)}
    for annotations in ({"io.bpffs.delegate_cmds": many}, hostile):
        with Scratch() as container:
            assert container.hook(annotations).returncode == BAD_ANNOTATION
        line = audited()[-1]
        jsonschema.validate(line, SCHEMA)
        assert line["problems"][-1].endswith(" more")
        assert len(json.dumps(line)) < 1 << 16


def test_the_audit_trail_in_the_system_s_log() -> None:
    text = ALLOW.format(to="syslog", name="one", cmds="[map_create]")
    before = len(audited())
    with in_force(text), DevLog() as log, Scratch() as container:
        state = json.dumps(container.state(CMDS))
        assert run_hook(state, prefix=log.prefix).returncode == 0
        audit, said = log.lines()
        assert audit.text.startswith("audit {")
        jsonschema.validate(json.loads(audit.text.removeprefix("audit ")), SCHEMA)
        assert (said.priority, "by rule one" in said.text) == (INFO, True)
        state = json.dumps(container.state({"io.bpffs.delegate_cmds": "prog_load"}))
        assert run_hook(state, prefix=log.prefix).returncode == REFUSED
        audit, said = log.lines()
        assert json.loads(audit.text.removeprefix("audit "))["rule"] == "one"
        assert said.priority == ERROR
    assert len(audited()) == before


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("daemon", ["none", "stopped reading"])
def test_a_grant_that_the_system_s_log_doesn_t_take(daemon: str, required: bool) -> None:
    text = ALLOW.format(to=f"syslog, required: {str(required).lower()}", name="a", cmds="[any]")
    with in_force(text), DevLog(listens=daemon != "none") as log, Scratch() as container:
        if daemon != "none":
            log.fill()
        result = run_hook(container.state(CMDS), prefix=log.prefix)
        if required:
            words = ("the audit trail syslog can't be written", "audit.required")
            assert_failed(result, REFUSED, *words, container=container)
        else:
            assert (result.returncode, len(container.mounts())) == (0, 1)


LONG = {
    "many items": {"io.bpffs.delegate_cmds": ":".join(f"x{number}" for number in range(5000))},
    "many keys": {f"io.bpffs.{number}{'x' * 3000}": "x" * 3000 for number in range(40)},
    "long names": {f"io.bpffs.\U0001f41d{number}": "\U0001f41d" * 900 for number in range(40)},
    "all names": {
        f"io.bpffs.delegate_{kind}": ":".join(ENUMS[f"delegate_{kind}"].values)
        for kind in ("cmds", "maps", "progs", "attachs")
    },
    "others'": {
        "io.bpffs.delegate_cmds": "map_create",
        "io.kubernetes.container.name": "\U0001f41d" * 5000,
        **{f"io.bpffs.mode/{number}": "\U0001f41d" * 900 for number in range(40)},
    },
}


@pytest.mark.parametrize("asked", LONG.values(), ids=LONG)
def test_nobody_pushes_the_decision_out_of_the_system_s_log(asked: dict[str, str]) -> None:
    """Its lines are cut at their end; the record of a long request is whole nevertheless."""
    text = "version: 1\naudit: {to: syslog}\n" + EVERYTHING.removeprefix("version: 1\n")
    with in_force(text), DevLog() as log, Scratch() as container:
        code = run_hook(container.state(asked), prefix=log.prefix).returncode
        audit = json.loads(log.lines()[0].text.removeprefix("audit "))
    jsonschema.validate(audit, SCHEMA)
    assert audit["code"] == code
    assert (audit["granted"] is None) is (code != 0)


def test_everything_hostile_at_once_fits_the_system_s_log() -> None:
    bees = "\U0001f41d" * 1000
    claims = dict.fromkeys(("container", "image", "namespace", "pod"), bees)
    names = {option: list(enum.values) for option, enum in ENUMS.items()}
    annotations = {f"io.bpffs.{number}{bees}": bees for number in range(100)}
    annotations |= {f"io.bpffs.{option}": ":".join(items) for option, items in names.items()}
    wanted = Grant(
        masks={option: enum.known & ~1 for option, enum in ENUMS.items()}, path="/x", mode=0o755
    )
    text = "version: 1\naudit: {to: syslog}\n" + EVERYTHING.removeprefix("version: 1\n")
    with in_force(text):
        case = Case(bees, annotations, cache.in_force)
        case.subject = asker(**claims, user=1 << 31)
        many = (bees,) * 100
        case.dropped = many
        case.decision = Decision(
            rule="r" * 63, match={}, grant=wanted, confined=False, trimmed=many
        )
        case.prepare()
    assert len(case._line) <= module.FITS
    jsonschema.validate(json.loads(case._line), SCHEMA)


def test_a_name_that_whoever_asks_a_broker_gives_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with DevLog() as log:
        monkeypatch.setattr(module, "DEV_LOG", log.path)
        Case("a\nroot: \u202e", {}, cache.in_force).say(mounted=True)
        (line,) = log.lines()
    assert line.text.startswith(r"a\nroot: \u202e: granted")


def test_what_is_doubtful_is_in_the_log() -> None:
    with DevLog() as log, Scratch() as container:
        asked = {"io.bpffs.delegate_cmds": "map_create,obj_get", "io.bpffs.delegate_maps": "hash"}
        assert run_hook(json.dumps(container.state(asked)), prefix=log.prefix).returncode == 0
        (line,) = log.lines()
    assert line.text.endswith("doubtful, see oci-bpf-hook lint: command-without-token")


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_policy_that_others_can_write(mode: int) -> None:
    """Even one that allows it: nothing is granted, and who asks for nothing starts."""
    before = audited()
    with in_force(EVERYTHING), Scratch() as container:
        POLICY.chmod(mode)
        result = container.hook(CMDS)
        assert_failed(result, BAD_POLICY, f"chmod go-w {POLICY}", container=container)
        assert container.hook({"io.example": "x"}).returncode == 0
    assert audited() == before


HOSTILE = 'x\n{}\r\x00\x1b[2J\u2028\u202e"}\ud800'


def test_nobody_writes_a_line_of_the_logs() -> None:
    """Whatever is in an annotation: one line of each, and plain ASCII."""
    asked = {
        "io.bpffs.delegate_cmds": "map_create",
        f"io.bpffs.{HOSTILE}": HOSTILE,
        "io.bpffs.path": f"/{HOSTILE}",
        "io.bpffs.profile": HOSTILE,
        "io.kubernetes.pod.namespace": HOSTILE,
        "io.kubernetes.container.name": HOSTILE,
    }
    for annotations in (asked, {key: asked[key] for key in list(asked)[:1] + list(asked)[4:]}):
        before = len(audited())
        with DevLog() as log, Scratch() as container:
            result = run_hook(container.state(annotations), prefix=log.prefix)
            (line,) = log.lines()
        assert result.stderr.count("\n") == (1 if result.returncode else 0)
        (found,) = audited()[before:]
        jsonschema.validate(found, SCHEMA)
        for text in (result.stderr, line.text, AUDIT.read_text()):
            assert text.isascii()
            assert not {"\r", "\x00", "\x1b"} & set(text)
    assert found["requester"]["namespace"] == HOSTILE


def test_a_policy_that_changes_while_containers_start() -> None:
    """Each of twenty sees one of two policies, whole."""
    both = {
        "a" * 10: ("[map_create, prog_load]", "map_create:prog_load"),
        "b" * 40: ("[map_create, btf_load]", "map_create:btf_load"),
    }
    texts = [
        ALLOW.format(to="/var/log/oci-bpf-hook/audit.jsonl", name=name, cmds=cmds)
        + "  on_excess: trim\n"
        for name, (cmds, _) in both.items()
    ]
    asked = {"io.bpffs.delegate_cmds": "map_create,prog_load,btf_load"}
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for text in texts:
                write(text)

    def start(_: int) -> None:
        with Scratch() as container:
            done = container.hook(asked)
            assert done.returncode == 0, done.stderr

    before = len(audited())
    with in_force(texts[0]):
        thread = threading.Thread(target=change)
        thread.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(start, range(20)))
        finally:
            stop.set()
            thread.join()
    lines = audited()[before:]
    assert len(lines) == 20
    for line in lines:
        assert line["granted"] == {"delegate_cmds": both[line["rule"]][1]}


# ---- how much of it there is -----------------------------------------------------------------

BEE = "\U0001f41d"
HUGE = {
    "a long list": {"io.bpffs.delegate_cmds": f"{BEE * 200}:" * 100},
    "long keys": {f"io.bpffs.{number}{BEE * 900}": BEE for number in range(20)},
    "many keys": {f"io.bpffs.{number}": BEE * 60 for number in range(200)},
    "control characters": {"io.bpffs.delegate_cmds": "\x01" * 60_000},
}


@pytest.mark.parametrize("asked", HUGE.values(), ids=HUGE)
def test_a_refusal_is_a_short_line(asked: dict[str, str]) -> None:
    """Whatever it was that was refused; the line is whole, and says what it isn't."""
    claims = dict.fromkeys(("container", "image", "namespace", "pod"), BEE * 1000)
    with in_force(None):
        case = Case(BEE * 1000, asked, cache.in_force)
        case.subject = asker(**claims, user=1, group=tuple(range(1 << 31, (1 << 31) + 300)))
        before = AUDIT.stat().st_size if AUDIT.exists() else 0
        outcomes.refused(case, HookError(REFUSED, *(BEE * 4000 for _ in range(30)), rule="r" * 63))
    assert AUDIT.stat().st_size - before <= LONGEST == 4096
    line = audited()[-1]
    jsonschema.validate(line, SCHEMA)
    assert line["cut"] is True
    assert line["problems"][-1].endswith(" more")
    assert line["rule"] == "r" * 63


def test_a_grant_is_on_record_as_a_whole() -> None:
    """However many annotations for others it comes with."""
    asked = {**CMDS, **{f"io.bpffs.mode/{number}{BEE * 99}": BEE * 900 for number in range(40)}}
    asked |= {"io.bpffs.path": "/opt/deep", "io.kubernetes.container.name": "web"}
    with Scratch() as container:
        assert container.hook(asked).returncode == 0
    line = audited()[-1]
    assert line["granted"] == {"delegate_cmds": "map_create"}
    assert (line["requested"]["io.bpffs.path"], line["cut"]) == ("/opt/deep", True)
    assert len(json.dumps(line)) < 2 * LONGEST


def test_nothing_is_cut_of_what_is_short() -> None:
    with in_force("version: 1\nrules: []\n"), Scratch() as container:
        assert container.hook(CMDS).returncode == REFUSED
    assert "cut" not in audited()[-1]


def test_what_isn_t_on_record_is_counted() -> None:
    """Refused again and again, in a minute: root's engines, which run a hook for each."""
    asked = {"io.bpffs.delegate_cmds": ":".join(f"x{BEE}{number}" for number in range(300))}
    before = len(audited())
    case = Case("x", asked, cache.in_force, user=ALICE)
    for _ in range(100):
        outcomes.refused(case, HookError(REFUSED, "no"), "said")
    # Whoever isn't refused so often is on record.
    other = Case("y", CMDS, cache.in_force, user=ALICE + 1)
    outcomes.refused(other, HookError(REFUSED, "no"))
    with DevLog() as log:
        module_path, module.DEV_LOG = module.DEV_LOG, log.path
        try:
            allowance.say_more(str(AUDIT), every=True)
        finally:
            module.DEV_LOG = module_path
        (said,) = log.lines()
    lines = audited()[before:]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    refused = [line for line in lines if line["outcome"] == "refused"]
    of_alice = [line for line in refused if line["container"] == "x"]
    assert sum(len(json.dumps(line, separators=(",", ":"))) for line in of_alice) < 64 << 10
    assert [line["container"] for line in refused][-1] == "y"
    more = lines[-1]
    assert (more["outcome"], more["user"]) == ("more", ALICE)
    assert more["refused"] == 100 - len(of_alice) > 0
    assert said.text.startswith(f"{more['refused']} more refusals of user {ALICE}")


ALICE = 61_001

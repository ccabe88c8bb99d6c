"""All that is wrong with a request, keys and names alike, wherever it is looked at: at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_ANNOTATION, UNKNOWN_NAME, USAGE
from tests.broker.test_client import inside
from tests.support.broker import Broker, Peer
from tests.support.command import command
from tests.support.policy import audited, in_force
from tests.support.precreate import config
from tests.support.scratch import Scratch, io, run_hook

PREFIX = "io.bpffs."
# A key that there isn't, a mode that is none, a profile that the policy lacks, a name that no
# kernel has, in two lists, and one that is no name at all.
WRONG = {
    f"{PREFIX}delegate_cmds": "map_create:prog_lode:!prog_lode:5",
    f"{PREFIX}delegate_cmd": "any",
    f"{PREFIX}delegate_maps": "hash,prog_lode",
    f"{PREFIX}profile": "xpd socket-filter a/b",
    f"{PREFIX}mode": "rwx",
}
# What each says, in this order.
SAID = (
    'io.bpffs.delegate_cmd" isn\'t a known key; did you mean "io.bpffs.delegate_cmds"?',
    'io.bpffs.delegate_cmds": "5" is a decimal number',
    'io.bpffs.profile": "a/b" can\'t be the name of a profile',
    'io.bpffs.mode": "rwx" isn\'t an octal mode',
    'io.bpffs.profile: the policy has no profile "xpd"; did you mean "xdp"?',
    'io.bpffs.delegate_cmds: no command is called "prog_lode"; did you mean "prog_load"',
    'io.bpffs.delegate_maps: no map type is called "prog_lode"',
)
# The same without what is wrong with its annotations.
UNKNOWN = {
    f"{PREFIX}delegate_cmds": "map_create:prog_lode",
    f"{PREFIX}delegate_maps": "hash,prog_lode",
    f"{PREFIX}profile": "xpd",
}


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(None):
        yield


def assert_all(text: str, said: tuple[str, ...] = SAID) -> None:
    """Each is there once, in their order."""
    places = []
    for words in said:
        assert text.count(words) == 1, (words, text)
        places.append(text.index(words))
    assert places == sorted(places), text


def given(annotations: dict[str, str]) -> list[str]:
    return [part for key, text in annotations.items() for part in ("--annotation", f"{key}={text}")]


# ---- the hook, the broker, precreate -----------------------------------------------------------


def test_the_hook() -> None:
    with Scratch() as container:
        before = len(audited())
        result = container.hook(WRONG)
        assert result.returncode == BAD_ANNOTATION
        assert_all(result.stderr)
        (line,) = audited()[before:]
        assert (line["outcome"], line["code"]) == ("refused", BAD_ANNOTATION)
        assert_all("\n".join(line["problems"]))
        container.assert_untouched()


def test_names_alone_have_their_own_code() -> None:
    with Scratch() as container:
        assert container.hook(UNKNOWN).returncode == UNKNOWN_NAME


def test_without_a_policy_that_is_in_order() -> None:
    """What is wrong with the annotations is said all the same."""
    with in_force("version: 1\nrules: nothing\n"), Scratch() as container:
        result = container.hook(WRONG)
        assert result.returncode == BAD_ANNOTATION
        assert_all(result.stderr, SAID[:4])
        assert "xpd" not in result.stderr


def test_nothing_left_to_be_looked_up() -> None:
    with Scratch() as container:
        result = container.hook(io(delegate_cmd="any", mode="rwx"))
        assert result.returncode == BAD_ANNOTATION
        assert result.stderr.count("; did you mean") == 1
        assert "isn't an octal mode" in result.stderr


def test_on_unknown_drop() -> None:
    """Of names that newer kernels have nothing is to be said, and of others there is."""
    with Scratch() as container:
        result = container.hook(WRONG | io(on_unknown="drop"))
        assert result.returncode == BAD_ANNOTATION
        assert_all(result.stderr)


def test_a_client_of_the_broker() -> None:
    """The names are the broker's to judge, and what it says comes along."""
    with Broker(), Scratch() as container:
        before = len(audited())
        result = inside(container, WRONG)
        assert result.returncode == BAD_ANNOTATION
        assert_all(result.stderr)
        container.assert_untouched()
        (line,) = audited()[before:]
        assert (line["outcome"], line["code"]) == ("refused", UNKNOWN_NAME)


def test_a_client_whose_names_are_known() -> None:
    """It isn't granted what is left of the request, nor is that on record."""
    with Broker(), Scratch() as container:
        before = len(audited())
        result = inside(container, io(delegate_cmds="map_create", mode="rwx", path="/opt/new"))
        assert result.returncode == BAD_ANNOTATION
        assert "isn't an octal mode" in result.stderr
        assert audited()[before:] == []
        container.assert_untouched()


def test_a_client_without_a_broker() -> None:
    with Scratch() as container:
        result = inside(container, WRONG)
        assert result.returncode == BAD_ANNOTATION
        assert_all(result.stderr, SAID[:4])


def test_the_broker_itself() -> None:
    """Whoever asks it by hand: our own client sends it nothing of the kind."""
    with Broker(), Scratch() as container, Peer(container.entering()) as peer:
        before = len(audited())
        refused = peer.ask(WRONG)
        assert refused["code"] == BAD_ANNOTATION
        assert_all("\n".join(refused["problems"]))
        (line,) = audited()[before:]
        assert_all("\n".join(line["problems"]))


def test_precreate() -> None:
    result = run_hook(json.dumps(config(WRONG)), "precreate")
    assert (result.returncode, result.stdout) == (BAD_ANNOTATION, "")
    assert_all(result.stderr)


# ---- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check", "explain", "lint", "policy test"])
def test_commands(name: str) -> None:
    done = command(*name.split(), *given(WRONG))
    assert done.returncode == BAD_ANNOTATION
    assert_all(done.stdout + done.stderr)
    done = command(*name.split(), *given(UNKNOWN))
    assert done.returncode == UNKNOWN_NAME


@pytest.mark.parametrize("name", ["check", "explain"])
def test_each_finding_has_its_own_code_and_annotation(name: str) -> None:
    done = command(name, "--json", *given(WRONG))
    (one,) = json.loads(done.stdout)["containers"]
    assert one["code"] == BAD_ANNOTATION
    found = [(each["code"], each["annotation"]) for each in one["findings"] if each["code"]]
    keys = ["delegate_cmd", "delegate_cmds", "profile", "mode"]
    names = ["profile", "delegate_cmds", "delegate_maps"]
    assert found == [
        *((BAD_ANNOTATION, PREFIX + key) for key in keys),
        *((UNKNOWN_NAME, PREFIX + key) for key in names),
    ]


def test_delegate() -> None:
    with Scratch() as container:
        lists = ("--cmds", "map_create:prog_lode:5", "--maps", "hash,prog_lode")
        more = ("--profile", "xpd", "--path", "run")
        for dry in ((), ("--dry-run",)):
            done = command("delegate", "--pid", str(container.init.pid), *dry, *lists, *more)
            assert done.returncode == BAD_ANNOTATION
            path = 'io.bpffs.path": "run" isn\'t an absolute path'
            assert_all(done.stderr, (SAID[1], path, *SAID[4:]))


def test_inject(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"linux": {"namespaces": [{"type": "user"}]}, "process": {}}))
    before = path.read_bytes()
    done = command("inject", tmp_path, *given(WRONG))
    assert done.returncode == BAD_ANNOTATION
    assert_all(done.stderr)
    assert path.read_bytes() == before


def test_convert() -> None:
    text = "".join(f"{key}={value}\n" for key, value in WRONG.items())
    done = command("convert", "--from", "annotations", "--to", "systemd", stdin=text)
    assert (done.returncode, done.stdout) == (BAD_ANNOTATION, "")
    assert_all(done.stderr)


def test_cdi_generate() -> None:
    profiles = ("--profile=xpd", "--profile=odd-", "--profile=xpd", "--profile=socket-filtr")
    done = command("cdi", "generate", *profiles, "--path", "run", "--output", "-")
    assert (done.returncode, done.stdout) == (USAGE, "")
    said = (
        '"--path": "run" isn\'t an absolute path',
        "\"odd-\" can't be a CDI device's name",
        '--profile: the policy has no profile "xpd"; did you mean "xdp"?',
        '--profile: the policy has no profile "socket-filtr"',
    )
    assert_all(done.stderr, said)
    done = command("cdi", "generate", "--profile=xpd", "--output", "-")
    assert done.returncode == UNKNOWN_NAME


# ---- none too many -----------------------------------------------------------------------------

KEYS = {f"{PREFIX}x{number}": "any" for number in range(3000)}
NAMES = {f"{PREFIX}delegate_cmds": " ".join(f"x{number}" for number in range(3000))}


@pytest.mark.parametrize(("annotations", "rest"), [(KEYS, 2980), (KEYS | NAMES, 5980)])
def test_thousands_of_them(annotations: dict[str, str], rest: int) -> None:
    """A line of the log stays short, whatever there is to say."""
    with Scratch() as container:
        result = container.hook(annotations | io(mode="rwx", delegate_maps="hash"))
        assert result.returncode == BAD_ANNOTATION
        assert len(result.stderr) < 8000
        assert f"; and {rest + 1} more" in result.stderr

"""The policy that a process keeps which stays: the one in force, at any time."""

import os
import time

import pytest

from oci_bpf_hook.errors import BAD_POLICY, HookError
from oci_bpf_hook.policy.compiled import Compiled
from oci_bpf_hook.policy.store import source
from oci_bpf_hook.policy.store import watch as policywatch
from oci_bpf_hook.policy.store.watch import Watched
from tests.support.policyplace import DENY, Place
from tests.support.subjects import subject as asker


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(policywatch, "log", lambda priority, text: lines.append(text))
    return lines


def watch(place: Place) -> Watched:
    return Watched(etc=str(place.etc), run=str(place.run))


def name(watched: Watched) -> str:
    policy = watched.get()
    assert isinstance(policy, Compiled)
    (rule,) = policy.rules(asker())
    return str(rule["name"])


def no_more_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policywatch, "in_force", None)


def test_it_is_kept(place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(DENY.format(name="one"))
    watched = watch(place)
    assert name(watched) == "one"
    no_more_reading(monkeypatch)
    assert name(watched) == "one"
    assert said == ["broker: the policy is in order and in force"]


def test_a_change_is_seen(place: Place, said: list[str]) -> None:
    watched = watch(place)
    for each in ("one", "two", "three"):
        place.write(DENY.format(name=each))
        assert name(watched) == each
    place.etc.unlink()
    policy = watched.get()
    assert isinstance(policy, Compiled)
    assert "own-namespaces" in [rule["name"] for rule in policy.rules(asker())]
    assert len(said) == 4


def unseen_change(place: Place, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """What has seen the policy "one", which is "two" by now and looks the same."""
    place.write(DENY.format(name="one"))
    watched = watch(place)
    assert name(watched) == "one"
    now = watched._now()
    monkeypatch.setattr(watched, "_now", lambda: now)
    place.write(DENY.format(name="two"))
    return watched


def test_what_may_change_unseen_is_read_each_time(
    place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change in the same tick of the file system's clock leaves no trace."""
    monkeypatch.setattr(source, "SETTLED", 3600 * 10**9)
    watched = unseen_change(place, monkeypatch)
    assert name(watched) == "two"
    assert len(said) == 1


def test_forgotten(place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = unseen_change(place, monkeypatch)
    assert name(watched) == "one"
    watched.forget()
    assert name(watched) == "two"


def test_one_that_is_wrong_is_said_once(place: Place, said: list[str]) -> None:
    place.write(DENY.format(name="one"))
    watched = watch(place)
    assert name(watched) == "one"
    place.write("version: 1\nrule: []\n")
    for _ in range(3):
        error = watched.get()
        assert isinstance(error, HookError)
        assert error.code == BAD_POLICY
    place.etc.chmod(0o666)
    other = watched.get()
    assert isinstance(other, HookError)
    place.write(DENY.format(name="one"))
    assert name(watched) == "one"
    assert [line.split(": ")[1] for line in said] == [
        "the policy is in order and in force",
        "the policy is out of order",
        "the policy is out of order",
        "the policy is in order and in force",
    ]


def test_a_user_that_there_is_now(
    place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong may be put right elsewhere than in the policy's own file."""
    place.write("version: 1\nrules:\n- {name: a, match: {user: obh-late}, deny: x}\n")
    watched = watch(place)
    error = watched.get()
    assert isinstance(error, HookError)
    assert 'no user "obh-late"' in str(error)
    monkeypatch.setattr("oci_bpf_hook.policy.store.file._uid", lambda name: 4711)
    assert isinstance(watched.get(), Compiled)


def test_a_directory_that_others_could_write(place: Place, said: list[str]) -> None:
    """Of which nothing is to be seen in the file itself, then as now."""
    place.write(DENY.format(name="one"))
    watched = watch(place)
    assert name(watched) == "one"
    place.etc.parent.chmod(0o777)
    assert isinstance(watched.get(), HookError)
    place.etc.parent.chmod(0o755)
    assert name(watched) == "one"


def test_it_holds_no_fd(place: Place, said: list[str]) -> None:
    watched = watch(place)
    place.write(DENY.format(name="one"))
    watched.get()
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        place.write(DENY.format(name=f"n{number}"))
        assert name(watched) == f"n{number}"
        time.sleep(0.01)
    place.write("version: 2\n")
    watched.get()
    assert os.listdir("/proc/self/fd") == before

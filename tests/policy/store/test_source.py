"""Who may have written the policy's file: root alone, in directories of root's."""

import os

import pytest

from oci_bpf_hook.errors import BAD_POLICY, HookError
from oci_bpf_hook.policy.store import cache
from tests.support.policyplace import DENY, Place


def refused(place: Place) -> str:
    with pytest.raises(HookError) as error:
        place.policy()
    assert error.value.code == BAD_POLICY
    return str(error.value)


def test_who_may_have_written_the_policy(place: Place) -> None:
    place.write(DENY.format(name="one"))
    for mode in (0o664, 0o646):
        place.etc.chmod(mode)
        assert f"chmod go-w {place.etc}" in refused(place)
    place.etc.chmod(0o644)
    os.chown(place.etc, 1000, 0)
    assert "isn't root's" in refused(place)
    os.chown(place.etc, 0, 0)
    place.etc.parent.chmod(0o777)
    assert f"chmod go-w {place.etc.parent}" in refused(place)
    place.etc.parent.chmod(0o755)
    assert place.name() == "one"


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_the_root_directory_is_one_of_those_above_it(place: Place, mode: int) -> None:
    place.write(DENY.format(name="one"))
    place.etc.parent.parent.chmod(mode)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chroot(place.etc.parent.parent)
            cache.open_source("/etc/policy.yaml")
        except HookError as error:
            code = 0 if "can write /, and so" in str(error) else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_links_are_not_followed(place: Place) -> None:
    place.write(DENY.format(name="one"))
    place.etc.rename(place.etc.with_name("real"))
    place.etc.symlink_to("real")
    assert "can't be read: it is a symbolic link" in refused(place)
    place.etc.unlink()
    place.etc.parent.rename(place.etc.parent.with_name("real"))
    place.etc.parent.symlink_to("real")
    assert "can't be read: it is a symbolic link" in refused(place)


def test_no_regular_file(place: Place) -> None:
    os.mkfifo(place.etc)
    place.etc.chmod(0o600)
    assert "isn't a regular file" in refused(place)


def test_a_bad_file(place: Place) -> None:
    place.write("version: 1\nrule: []\n")
    assert f"{place.etc}:2:1:" in refused(place)

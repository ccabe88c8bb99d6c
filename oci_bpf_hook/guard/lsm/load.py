"""Turns the guard on and off: loads, tries and pins its programs, or removes them again.

The guard that is pinned in one certain directory is in force.  That directory appears, or is
exchanged for another one, in one step (renameat2).  A new guard is complete, attached and tried
before it replaces the old one, and shares the marks and tokens of the old one, whose links are
removed after that.  So whenever this process is killed, the old or the new guard is in force.
Leftovers are removed the next time; until then, if there are two guards, a load is refused if
either of them refuses it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOENT, ENOTEMPTY
from struct import Struct
from typing import Any

from ...bpf.names import KINDS, PROGS
from ...bpf.names import MAPS as MAP_TYPES
from ...container.namespaces import is_initial
from ...errors import KERNEL_CANNOT, NO_BROKER, HookError, Problem
from ...kernel import enums as kernel
from ...kernel import syscalls
from ...kernel.bpf import prog_exists
from ...kernel.process import exchange, mount_bpffs
from ...paths import BPFFS, GUARD, GUARD_LOCK, PINS
from ...values import Value
from ...whole import make_directory
from ..pinned import (
    CONFIG,
    CONFIG_VALUE,
    KEY,
    LINKS,
    MARKS,
    TOKENS,
    VERSION,
    AbsentError,
    Guard,
    in_force,
)
from .host import require_lsms, require_own
from .libbpf import Libbpf, Object
from .lists import OBJECT, Lists, digest, lists, types
from .proof import prove

LSMS = "/sys/kernel/security/lsm"
KFUNCS = "kfuncs"
HELPERS = "helpers"
SPACES = "spaces"
USERS = "users"
EVENTS = "events"
NUMBERS = "numbers"
# The maps that a new guard takes over from the old one: who is held, and what has been refused.
SHARED = (MARKS, TOKENS, SPACES, USERS, EVENTS, NUMBERS)
# If these were lost, the tokens that are held now wouldn't be held any more.
_KEPT_FOR_SURE = (MARKS, TOKENS)
MAPS = (*SHARED, CONFIG, KFUNCS, HELPERS)

# Seconds to wait for the end of a guard's programs, for which the kernel needs a few tenths of one.
_PATIENCE = 10
# Beside the directory of the guard in force there may be one of a guard that is being made, and one
# of a guard that is being removed.  A name in a bpffs can't contain a dot.
_NEXT = f"{GUARD}-next"
_GONE = f"{GUARD}-gone"
_BPF_MAP_GET_NEXT_KEY = 4
_MASK = Struct("=Q")
# Where struct pt_regs has the first two arguments of the current system call, in bytes (Linux:
# arch/*/include/asm/ptrace.h).  Without them a record lacks the program's name.
_ARGUMENTS = {"x86_64": (112, 104), "aarch64": (0, 8), "riscv64": (80, 88), "loongarch64": (32, 40)}


class Outcome(Value):
    """What was done: whether anything `changed`, and the digest of the guard in force."""

    __slots__ = ("changed", "digest")
    changed: bool
    digest: str


def obstacles() -> list[Problem]:
    """What keeps this host from having a guard, each with what to do; empty if nothing does."""
    found: list[Problem] = []
    try:
        lsms = read(LSMS).strip().split(",")
    except OSError:  # Without securityfs it can't be told, and nothing is marked (`require_lsms`).
        lsms = []
    if lsms and "bpf" not in lsms:
        # capability is left out, because the kernel puts it first by itself.
        wanted = ",".join([name for name in lsms if name != "capability"] + ["bpf"])
        text = f"BPF programs can't be LSMs on this host: {LSMS} has no bpf"
        hint = f"put lsm={wanted} on the kernel's command line and reboot"
        found.append(Problem(text, hint=hint))
    try:
        btf = kernel.btf_in()
    except (OSError, ValueError) as error:
        text = f"this kernel has no BTF ({error}), without which the guard can't adapt to it"
        return [*found, Problem(text)]
    # The kernel has a function of this name for each LSM hook that programs can be attached to.
    if any(btf.find(f"\0bpf_lsm_bpf_{name}\0".encode()) < 0 for name in LINKS):
        text = "this kernel has no LSM hooks for BPF tokens"
        found.append(Problem(f"{text}, which needs Linux 6.9 or later with CONFIG_BPF_LSM"))
    return found


def unready() -> list[Problem]:
    """What this installation lacks to turn the guard on; each problem says what to do."""
    found: list[Problem] = []
    for look in (digest, Libbpf):
        try:
            look()
        except HookError as error:
            found += error.problems
    return found


def read(path: str) -> str:
    """The text of a file of the kernel's.  Raises OSError."""
    with open(path, encoding="ascii") as file:
        return file.read()


def turn_on() -> Outcome:
    """Put the guard of this version in force, unless exactly this guard is in force already.

    Raises HookError, and then the old guard is unchanged.
    """
    _require_host()
    problems = obstacles()
    if problems:
        raise HookError(KERNEL_CANNOT, *problems)
    wanted = digest()
    with _alone():
        if loaded() == wanted:
            # Leftovers go: two guards would both count each token, but only one would see its end.
            _sweep()
            return Outcome(changed=False, digest=wanted.hex())
        enums = kernel.enums(KINDS)
        found = lists(types(), enums[PROGS.option], enums[MAP_TYPES.option])
        library = Libbpf()
        _sweep()
        try:
            _mount_bpffs()
            _build(library, found)
            _put_in_place()
        finally:
            _sweep()
    return Outcome(changed=True, digest=found.digest.hex())


def turn_off() -> bool:
    """Remove the guard; returns whether there was one.  Raises HookError.

    The caller has to check before whom the guard holds, because after this it holds nobody.
    """
    _require_host()
    if not there():
        return False
    with _alone():
        _sweep()
        if os.path.isdir(GUARD):
            # In one step, so that no grant finds half a guard.
            os.rename(GUARD, _GONE)
        _sweep()
    return True


def there() -> bool:
    """Whether there is any part of a guard, complete or not, that may hold somebody."""
    return any(map(os.path.isdir, (GUARD, _NEXT, _GONE)))


def loaded(directory: str = GUARD) -> bytes:
    """The digest of the guard in force, b"" if there is none."""
    try:
        with in_force(directory):
            config = _config(directory)
    except AbsentError:
        return b""
    return bytes(config[-1]) if config else b""


def is_current() -> bool:
    """Whether the guard in force is the one that this version would load."""
    try:
        return loaded() == digest()
    except HookError:  # This installation has no object to load.
        return False


def tokens(directory: str = GUARD) -> int:
    """How many confined tokens there are, as far as they can be counted.  Raises OSError."""
    fd = syscalls.bpf_obj_get(f"{directory}/{TOKENS}".encode())
    try:
        return sum(1 for _ in keys(fd, 8))
    finally:
        os.close(fd)


def keys(fd: int, size: int) -> Iterator[bytes]:
    """The keys of a map, each of `size` bytes.  Raises OSError.

    If the map changes meanwhile, some keys may come twice, but the iteration ends.
    """
    key, seen = b"", set[bytes]()
    while True:
        try:
            key = syscalls.bpf_map(_BPF_MAP_GET_NEXT_KEY, fd, key, size)
        except OSError as error:
            if error.errno != ENOENT:
                raise
            return
        if key in seen:
            return
        seen.add(key)
        yield key


def _require_host() -> None:
    if os.geteuid() or not is_initial():
        raise HookError(
            NO_BROKER, "run this as root (sudo) in the initial user namespace, where the guard is"
        )


@contextmanager
def _alone() -> Iterator[None]:
    """Let only one process do this at a time, and only if nobody else has pinned anything here."""
    make_directory(os.path.dirname(GUARD_LOCK))
    fd = os.open(GUARD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        require_own(PINS)
        yield
    finally:
        os.close(fd)


def _mount_bpffs() -> None:
    """Mount a bpffs where systemd would, and make our directory in it."""
    if not any(
        line.split(" ")[1:3] == [BPFFS, "bpf"] for line in read("/proc/self/mounts").split("\n")
    ):
        mount_bpffs(BPFFS.encode())
    os.makedirs(PINS, mode=0o700, exist_ok=True)
    # Somebody else may have made it meanwhile.
    require_own(PINS)


def _sweep() -> None:
    """Remove all but the guard in force; a link ends when its name is removed."""
    ended: list[int] = []
    for directory in (_NEXT, _GONE):
        if not os.path.isdir(directory):
            continue
        ended += _programs(directory)
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    if not os.path.isdir(GUARD):
        _remove_empty(PINS)
    _wait_for_end(ended)


def _programs(directory: str) -> list[int]:
    """The ids of the programs of the guard that is pinned there, as far as it tells."""
    config = _config(directory)
    if config is None or config[0] != VERSION:
        return []
    _, _, _, _, _, _, _, *ids, _, _ = config
    return ids[: len(LINKS)]


def _config(directory: str) -> tuple[Any, ...] | None:
    """The config of the guard that is pinned there, as CONFIG_VALUE has it; None without one."""
    try:
        fd = syscalls.bpf_obj_get(f"{directory}/{CONFIG}".encode())
    except OSError:
        return None
    try:
        value = syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, fd, KEY.pack(0), CONFIG_VALUE.size)
    except OSError:
        return None
    finally:
        os.close(fd)
    return CONFIG_VALUE.unpack(value)


def _wait_for_end(programs: list[int]) -> None:
    """Wait until these programs don't run any more, so that our report is true.

    The kernel frees a pinned link some time after its name is removed, and its program after that
    (Linux: kernel/bpf/inode.c, bpf_free_inode; kernel/bpf/syscall.c, bpf_link_free), and tells
    nobody.
    """
    deadline = time.monotonic() + _PATIENCE
    while any(map(prog_exists, programs)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _remove_empty(directory: str) -> None:
    """Remove `directory`, unless it is gone, or others have pinned something there."""
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno not in (ENOENT, ENOTEMPTY):
            raise


def _build(library: Libbpf, found: Lists) -> None:
    """Make a complete guard, attached and tried, in a directory beside the one in force."""
    with Object(library, str(OBJECT)) as object_:
        _make(object_, found)
        _try(object_)


def _make(object_: Object, found: Lists) -> None:
    """Load it with its lists, which nothing can change any more."""
    for name in SHARED:
        _share(object_, name)
    object_.load()
    _configure(object_, found)
    for number, mask in found.kfuncs.items():
        _update(object_.map(KFUNCS), number, _MASK.pack(mask))
    for number, (closed, perfmon) in found.helpers.items():
        _update(object_.map(HELPERS), number, _MASK.pack(closed) + _MASK.pack(perfmon))
    for name in (CONFIG, KFUNCS, HELPERS):
        object_.freeze(name)


def _try(object_: Object) -> None:
    """Attach it, check that it works, and pin it."""
    require_lsms(LSMS)
    links = [object_.attach(name) for name in LINKS]
    with Guard(os.dup(object_.map(MARKS))) as guard:
        prove(guard)
    os.mkdir(_NEXT, 0o700)
    for name in MAPS:
        object_.pin(object_.map(name), f"{_NEXT}/{name}")
    for name, link in zip(LINKS, links, strict=True):
        object_.pin(link, f"{_NEXT}/{name}")
    try:
        in_force(_NEXT).__exit__(None, None, None)
    except AbsentError as error:
        raise HookError(KERNEL_CANNOT, f"the guard was loaded, but {error}") from None


def _share(object_: Object, name: str) -> None:
    """Have the new guard use the old one's map, if that still has the same form."""
    try:
        fd = syscalls.bpf_obj_get(f"{GUARD}/{name}".encode())
    except FileNotFoundError:
        return
    try:
        info = syscalls.bpf_obj_info(fd)
        # struct bpf_map_info: type, id, key_size, value_size.  libbpf would accept any map.
        if (_word(info, 0), _word(info, 2), _word(info, 3)) == object_.form(name):
            object_.reuse(name, fd)
        elif name in _KEPT_FOR_SURE:
            raise HookError(
                KERNEL_CANNOT,
                f"the guard in force has a map {name} of another form, so the new guard can't take "
                "over what it confines; stop the containers that it confines, and then run guard "
                "off and guard on",
            )
    finally:
        os.close(fd)


def _configure(object_: Object, found: Lists) -> None:
    programs = [_word(syscalls.bpf_obj_info(object_.program(name)), 1) for name in LINKS]
    maps = [_word(syscalls.bpf_obj_info(object_.map(name)), 1) for name in (MARKS, TOKENS)]
    value = CONFIG_VALUE.pack(
        *(VERSION, found.types, found.perfmon, found.map_types, found.capabilities),
        *_ARGUMENTS.get(syscalls.MACHINE, (0, 0)),
        *programs,
        *maps,
        found.loads,
        found.digest,
    )
    _update(object_.map(CONFIG), 0, value)


def _update(fd: int, key: int, value: bytes) -> None:
    syscalls.bpf_map(syscalls.BPF_MAP_UPDATE_ELEM, fd, KEY.pack(key), value)


def _word(info: bytes, number: int) -> int:
    """One of the first 32-bit words of what the kernel tells of an object."""
    return int(KEY.unpack_from(info, 4 * number)[0])


def _put_in_place() -> None:
    """Put the next guard in force, in one step, and remove the last one."""
    if os.path.isdir(GUARD):
        exchange(_NEXT.encode(), GUARD.encode())
    else:
        os.rename(_NEXT, GUARD)
    _sweep()

"""Whether an engine will run the hook: whether it finds the JSON, and the program works.

An engine says nothing of a hook whose program it doesn't find, and one broken JSON in its
directory keeps every container from starting.
"""

import json
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import DONE
from ..running.programs import roots_alone
from .directories import ETC, OURS, PRECREATE, SHARED, is_precreate
from .engines import Engine, hooks_directories
from .finding import Finding, ok, problem

_INSTALL = "oci-bpf-hook install"
_SECONDS = 10


def check(engines: Sequence[Engine]) -> Iterator[Finding]:
    """What each of `engines` makes of its hook directories; nothing for those that read none."""
    yield from _misplaced()
    checked: set[str] = set()
    for engine in engines:
        directories = hooks_directories(engine)
        if not directories:
            continue
        broken, ours = _read(directories)
        for path, why in broken:
            yield problem(
                "hooks-json",
                f"{path}: {why}; {engine.name} starts no container because of it",
                f"mv {quote(path)} {quote(path)}.broken",
            )
        if ours:
            yield ok("hooks-dir", f"{engine.name} reads {ours}")
            if ours not in checked:
                checked.add(ours)
                yield from _check_ours(ours)
        elif not any(path.endswith(f"/{OURS}.json") for path, _ in broken):
            yield _not_read(engine, directories)


def _misplaced() -> Iterator[Finding]:
    """Files with podman's own stage in a directory that others read, too."""
    for path in (path for directory in (SHARED, ETC) for path in Path(directory).glob("*.json")):
        try:
            found = is_precreate(json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError):  # The check of each directory reports that.
            continue
        if found:
            yield problem(
                "hooks-json",
                f"{path}: CRI-O, and podman build as root, read {path.parent} too, and fail on "
                "the stage precreate",
                f"mkdir -p {PRECREATE} && mv {quote(str(path))} {PRECREATE}/",
            )


def _read(directories: Sequence[str]) -> tuple[list[tuple[str, str]], str | None]:
    """The broken files, each with the reason, and the file that is ours."""
    broken: list[tuple[str, str]] = []
    ours: str | None = None
    for directory in directories:
        for path in sorted(Path(directory).glob("*.json")):
            try:
                config = json.loads(path.read_bytes())
                program = config["hook"]["path"]
            except OSError as error:
                broken.append((str(path), error.strerror or "it can't be read"))
            except (ValueError, RecursionError) as error:
                broken.append((str(path), f"it isn't JSON: {error}"))
            except (KeyError, TypeError):
                broken.append((str(path), "it has no hook.path"))
            else:
                if is_precreate(config):
                    continue
                # A later directory wins.
                if str(program).rpartition("/")[2] == OURS or path.stem == OURS:
                    ours = str(path)
    return broken, ours


def _not_read(engine: Engine, directories: Sequence[str]) -> Finding:
    where = ", ".join(directories)
    for other in (SHARED, ETC):
        if other not in directories and (ours := _read([other])[1]):
            return problem(
                "hooks-dir",
                f"{engine.name} reads {where}, and the hook's JSON is in {other}",
                f"mv {quote(ours)} {quote(directories[-1])}/",
            )
    return problem("hook-missing", f"the hook isn't installed: no JSON for it in {where}", _INSTALL)


def _check_ours(path: str) -> Iterator[Finding]:
    if not os.geteuid() and not _is_roots(path):
        # CONTAINERS_CONF may come from a user's environment, and so may everything that it leads
        # to.
        yield problem(
            "hooks-json",
            f"others than root can change {path}, or a directory on the way to it, and root runs "
            "what it names",
            f"chown root: {quote(path)} && chmod 644 {quote(path)}",
        )
        return
    config = json.loads(Path(path).read_bytes())
    wrong = _against_schema(config)
    if wrong:
        yield problem("hooks-json", f"{path}: {wrong}", _INSTALL)
        return
    yield _check_program(config["hook"])


def _against_schema(config: object) -> str:
    """What is wrong with `config` as our JSON, or ""."""
    try:
        import jsonschema

        from ..resources import schema
    except ImportError:  # The hook alone doesn't need jsonschema, and then this isn't checked.
        return ""
    validator = jsonschema.Draft202012Validator(schema("hook"))
    for error in validator.iter_errors(config):
        where = ".".join(map(str, error.absolute_path))
        return f"{where or 'it'}: {error.message}"
    return ""


def _check_program(hook: Mapping[str, Any]) -> Finding:
    path = hook["path"]
    try:
        status = os.stat(path)
    except OSError as error:
        return problem(
            "hook-program",
            f"{path}: {error.strerror}; the engine starts containers without the hook and says "
            "nothing",
            _INSTALL,
        )
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return problem("hook-program", f"{path} can't be executed", f"chmod 755 {quote(path)}")
    if not _is_roots(path):
        return problem(
            "hook-program",
            f"others than root can write {path}, or change a directory on the way to it, and root "
            "runs it",
            f"chown root: {quote(path)} && chmod 755 {quote(path)}",
        )
    wrong = _try(path, hook)
    if wrong:
        return problem("hook-program", f"{path} doesn't work: {wrong}", _INSTALL)
    return ok("hook-program", f"{path} runs")


def _is_roots(path: str) -> bool:
    """Whether only root can change what is at `path`."""
    found = roots_alone(path)
    return found is not None and not found.st_mode & 0o022


def _try(path: str, hook: Mapping[str, Any]) -> str:
    """Run the hook for a container that asks for nothing; returns what went wrong, or ""."""
    try:
        env = dict(item.split("=", 1) for item in hook["env"])
        done = subprocess.run(  # noqa: S603
            [path, *hook["args"][1:]],
            input=b'{"id": "doctor"}',
            env=env,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        # Without jsonschema the check of the JSON hasn't found this.
        return "its JSON lacks env or args"
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == DONE else words[-1] if words else f"exit {done.returncode}"

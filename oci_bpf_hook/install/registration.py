"""The JSON that registers the hook with engines, and what its administrator has chosen in it.

Who installs or upgrades the hook again, by `install` or a package, needn't say again which engine
runs it (`install --engine`), or for how long the engine is to wait for it: that stays as it was.
"""

import json
from pathlib import Path
from typing import Any

from .. import whole

_ENGINE = "--engine"


def registration(source: Path, program: str, engine: str | None, before: Path) -> bytes:
    """The JSON `source` for the installed `program`, run by `engine`.

    Without an `engine` it is the one in the JSON at the path `before`, and so is the timeout.
    """
    loaded = json.loads(source.read_bytes())
    loaded["hook"]["path"] = program
    _choose(loaded["hook"], _hook_of(before), engine)
    return _text(loaded)


def keep(path: str, before: str) -> None:
    """Put what was chosen in the JSON at `before` into the one at `path`, which is a package's.

    The packages' scripts call this.  Raises OSError, ValueError.
    """
    loaded = json.loads(Path(path).read_bytes())
    text = _text(loaded)
    _choose(loaded["hook"], _hook_of(Path(before)), None)
    if _text(loaded) != text:
        whole.write(Path(path), _text(loaded), mode=0o644)


def _choose(hook: dict[str, Any], before: dict[str, Any], engine: str | None) -> None:
    engine = engine or _engine_of(before)
    if engine and _ENGINE not in hook["args"]:
        hook["args"] += [_ENGINE, engine]
    timeout = before.get("timeout")
    if type(timeout) is int and timeout > 0:
        hook["timeout"] = timeout


def _hook_of(path: Path) -> dict[str, Any]:
    """What the JSON at `path` says of the hook; {} if there is none that can be read."""
    try:
        hook = json.loads(path.read_bytes())["hook"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return {}
    return hook if isinstance(hook, dict) else {}


def _engine_of(hook: dict[str, Any]) -> str | None:
    args = hook.get("args")
    if not isinstance(args, list) or _ENGINE not in args[:-1]:
        return None
    engine = args[args.index(_ENGINE) + 1]
    return engine if isinstance(engine, str) else None


def _text(loaded: object) -> bytes:
    return (json.dumps(loaded, indent=4) + "\n").encode()

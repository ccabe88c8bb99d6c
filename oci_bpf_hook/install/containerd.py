"""containerd's drop-in, in the version of the configuration that is to import it.

containerd 2 reads configurations of version 2 and of version 3, in which CRI's plugins have
different names.  It takes config.toml and all that this imports for one version, and then ignores
with no more than a warning what has the names of the other: the drop-in, or all that config.toml
says of CRI (seen with containerd 2.1.9).  So a drop-in has to have the version of config.toml.
"""

import tomllib
from pathlib import Path

from ..errors import USAGE, HookError
from ..resources import resource
from .steps import Step, copy, removal

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/bpf.toml"
# By the version of config.toml; if that is missing or says none, containerd takes the drop-in's.
_FILES = {2: "bpf-version-2.toml", 3: "bpf.toml"}
_DEFAULT = 3


def version_of(path: Path) -> int | None:
    """The version that containerd's configuration at `path` has, or None if it says none.

    Raises HookError (USAGE) if it can't be read; a file that is missing says none.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("version")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise HookError(USAGE, f"{path} isn't TOML: {error}") from None
    return found if isinstance(found, int) else None


def drop_in(top: str) -> list[Step]:
    """The steps that write the drop-in for the configuration below `top`.  Raises HookError.

    If there is one of that version already, it may have been changed, and it stays.
    """
    config, path = Path(f"{top}{CONFIG}"), Path(f"{top}{DROP_IN}")
    version = version_of(config) or _DEFAULT
    if version not in _FILES:
        raise HookError(
            USAGE,
            f"{config} has version {version}, and the hook's drop-in needs containerd 2, which "
            "reads versions 2 and 3; `containerd config migrate` prints it in a newer version",
        )
    if path.exists() and version_of(path) == version:
        return []
    return [copy(path, resource("containerd") / _FILES[version])]


def removals(top: str) -> list[Step]:
    """The steps that remove the drop-in below `top`, unless somebody has changed it."""
    path = Path(f"{top}{DROP_IN}")
    shipped = [(resource("containerd") / name).read_bytes() for name in _FILES.values()]
    ours = path.is_file() and path.read_bytes() in shipped
    return [removal(path)] if ours else []

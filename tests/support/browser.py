"""A real browser, Debian's Chromium, without a screen: what it makes of a page, and its picture."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

NAME: Final = "chromium"
_OPTIONS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--no-first-run"),
    # No picture before all of it is drawn, however busy the machine is.
    "--run-all-compositor-stages-before-draw",
)
_SECONDS: Final = 60


def _run(page: Path, *options: str) -> str:
    with tempfile.TemporaryDirectory(prefix="obh-browser-", dir="/tmp") as profile:
        done = subprocess.run(
            [NAME, *_OPTIONS, f"--user-data-dir={profile}", *options, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            # Nothing of the caller's, a display or a bus among it.
            env={"PATH": "/usr/bin:/bin", "HOME": profile, "LC_ALL": "C.UTF-8"},
        )
    if done.returncode:
        raise RuntimeError(f"{NAME}: {done.stderr}")
    return done.stdout


def screenshot(page: Path, picture: Path, *, width: int, height: int, scale: int = 1) -> None:
    """Write what the `page` looks like to the PNG file `picture`."""
    size = f"--window-size={width},{height}"
    _run(page, size, f"--force-device-scale-factor={scale}", f"--screenshot={picture}")


def ask(page: Path, script: str, *, width: int = 1280, dark: bool = False) -> Any:
    """What the JavaScript expression `script` is in the page, as JSON.

    A page that allows no script is asked through a copy that does.
    """
    text = page.read_text(encoding="utf-8")
    policy = text.find('<meta http-equiv="Content-Security-Policy"')
    if policy >= 0:
        text = text[:policy] + text[text.index(">", policy) + 1 :]
    mark = "answer-of-the-page"
    code = (
        f"<script>document.body.insertAdjacentHTML('beforeend', '<pre id={mark}></pre>');"
        f"document.getElementById('{mark}').textContent = JSON.stringify({script});</script>"
    )
    with tempfile.TemporaryDirectory(prefix="obh-page-", dir="/tmp") as directory:
        copy = Path(directory, "page.html")
        copy.write_text(text.replace("</body>", f"{code}</body>"), encoding="utf-8")
        options = ("--blink-settings=preferredColorScheme=0",) if dark else ()
        dom = _run(copy, f"--window-size={width},800", *options, "--dump-dom")
    answer = dom[dom.index(f'<pre id="{mark}">') :]
    answer = answer[answer.index(">") + 1 : answer.index("</pre>")]
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", "\xa0"), ("&amp;", "&")):
        answer = answer.replace(entity, char)
    return json.loads(answer)

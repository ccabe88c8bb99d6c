"""The pictures in docs/ are what the commands show: the script that makes them works."""

import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

from tests.support.docs import PAGES
from tests.support.places import ROOT

NAMES = ("doctor.png", "inspect.png", "page.png")


def pixels(path: Path) -> tuple[int, int, Counter[bytes]]:
    """Width and height of a PNG file, and how often each of its lines comes, as it is stored."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed = 8, b""
    width = height = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, at + 8)
        elif kind == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += size + 12
    raw = zlib.decompress(packed)
    stride = len(raw) // height
    return (
        width,
        height,
        Counter(raw[line * stride : (line + 1) * stride] for line in range(height)),
    )


def test_they_can_be_made_anew(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.screenshots", str(tmp_path)], cwd=ROOT, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    for name in NAMES:
        width, height, lines = pixels(tmp_path / name)
        shipped_width, shipped_height, _ = pixels(ROOT / "docs" / "pictures" / name)
        # Something is on most of it, and about as much as when they were made.
        assert lines.most_common(1)[0][1] < height * 0.6
        assert abs(width - shipped_width) < 400
        assert abs(height - shipped_height) < 400


def test_the_docs_have_them() -> None:
    for name in NAMES:
        assert any(f"](pictures/{name})" in text for text in PAGES.values())

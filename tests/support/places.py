"""Where this checkout is, whatever folder a test is in."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

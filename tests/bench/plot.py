"""The results as a picture, drawn from the JSON: every round, the quartiles, the median.

`python -m tests.bench.plot results.json benchmark.png` draws it again.
"""

import importlib
import json
import random
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from .report import PROGRAMS

# matplotlib's own types, if only it were there to be asked; see draw().
Axes: TypeAlias = Any
Figure: TypeAlias = Any

# In inches; 8 of them at 160 dots are sharp where a README shows them in 800 pixels.
_WIDTH: Final = 8.0
_LEFT, _RIGHT = 2.5, 1.45  # what the labels and the figures take beside the panels
_ROW: Final = 0.4
_TOP, _BOTTOM, _GAP = 1.3, 0.35, 0.72
_DPI: Final = 160
_LABEL: Final = 34  # characters

_INK, _QUIET, _FAINT = "#1f2933", "#616e7c", "#e4e7eb"
_OURS, _OTHERS, _LIMIT = "#1967a8", "#8a94a0", "#c2410c"
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _QUIET,
}
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
# The part of the rounds that the axis has room for; the few beyond are arrows at its ends.
_SHOWN: Final = 0.95


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the `results` to the PNG file `path`.  Raises ModuleNotFoundError (matplotlib)."""
    # By name: the type checker must say the same with matplotlib installed and without.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    groups = results["groups"]
    heights = [len(group["rows"]) * _ROW for group in groups]
    height = sum(heights) + _GAP * (len(groups) - 1) + _TOP + _BOTTOM
    ends = _ranges(groups)
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(_WIDTH, height), facecolor="white")
        _headline(figure, results, height)
        below = height - _TOP
        for group, inches in zip(groups, heights, strict=True):
            below -= inches
            width = (_WIDTH - _LEFT - _RIGHT) / _WIDTH
            area = (_LEFT / _WIDTH, below / height, width, inches / height)
            _panel(figure.add_axes(area), group, ends[_axis(group)])
            below -= _GAP
        # No software's name and version in the file, which would differ for nothing.
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)


def _axis(group: dict[str, Any]) -> str:
    """The groups that go by the same name here, those of podman, have the same axis."""
    return str(group["name"]).partition("-")[0]


def _ranges(groups: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The ends of each axis: wide enough for the budget and for nearly all rounds."""
    low: dict[str, list[float]] = {}
    high: dict[str, list[float]] = {}
    for group in groups:
        for row in group["rows"]:
            ratios = sorted(row["ratios"])
            rest = int(len(ratios) * (1 - _SHOWN) / 2)
            low.setdefault(_axis(group), []).append(ratios[rest])
            high.setdefault(_axis(group), []).append(max(ratios[-1 - rest], row["budget"] or 0))
    ends: dict[str, tuple[float, float]] = {}
    for name, lowest in low.items():
        least, most = min(lowest), max(high[name])
        margin = (most - least) * 0.04
        # A ratio far below 1 is best seen beside 0.
        ends[name] = (0.0 if least < 0.5 else least - margin, most + margin)
    return ends


def _headline(figure: Figure, results: dict[str, Any], height: float) -> None:
    found = results["environment"]
    names = {"kernel": "Linux", "python": "Python"} | {key: key for key in PROGRAMS}
    versions = ", ".join(f"{name} {found[key]}" for key, name in names.items() if found[key])
    legend = (
        f"line: median, bar: quartiles, dots: each of {results['rounds']} rounds; "
        "a ratio is that of two runs in one round"
    )
    for inches, size, weight, color, text in (
        (0.36, 13, "bold", _INK, "What the hook costs, relative to each panel's first row"),
        (0.6, 8.5, "normal", _QUIET, legend),
        (0.79, 8.5, "normal", _QUIET, versions),
    ):
        figure.text(0.018, 1 - inches / height, text, size=size, weight=weight, color=color)


def _panel(axes: Axes, group: dict[str, Any], ends: tuple[float, float]) -> None:
    rows = group["rows"]
    axes.set_xlim(*ends)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0, labelsize=8.5)
    axes.xaxis.set_major_formatter(f"{{x:g}}{_TIMES}")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.annotate(
        *(group["title"], (0, 1)),
        xycoords="axes fraction",
        xytext=(-(_LEFT - 0.018 * _WIDTH) * 72, 5),
        textcoords="offset points",
        size=10.5,
        weight="bold",
    )
    for place, row in enumerate(rows):
        _words(axes, place, row, group["unit"])
        _marks(axes, place, row, ends)


def _ours(row: dict[str, Any]) -> bool:
    return str(row["label"]).startswith("the hook")


def _words(axes: Axes, place: int, row: dict[str, Any], unit: str) -> None:
    """What stands left and right of the panel."""
    ratio, value = row["ratio"]["median"], row["value"]["median"]
    over = row["verdict"] == "over"
    inch = 1 / (_WIDTH - _LEFT - _RIGHT)
    transform = axes.get_yaxis_transform()
    axes.text(
        *(-(_LEFT - 0.018 * _WIDTH) * inch, place, textwrap.fill(row["label"], _LABEL)),
        transform=transform,
        color=_INK if _ours(row) else _QUIET,
        va="center",
        linespacing=1.1,
    )
    axes.text(
        *(0.62 * inch + 1, place, f"{ratio:.2f}{_TIMES}"),
        transform=transform,
        color=_LIMIT if over else _INK,
        size=10.5,
        weight="bold" if _ours(row) else "normal",
        ha="right",
        va="center_baseline",
    )
    axes.text(
        *(1.32 * inch + 1, place, f"{value:.1f} {unit}"),
        transform=transform,
        color=_QUIET,
        ha="right",
        va="center_baseline",
    )


def _marks(axes: Axes, place: int, row: dict[str, Any], ends: tuple[float, float]) -> None:
    """What stands in the panel: each round, the quartiles, the median, the budget."""
    color = _OURS if _ours(row) else _OTHERS
    ratio, ratios = row["ratio"], row["ratios"]
    shift = random.Random(place)
    inside = [item for item in ratios if ends[0] <= item <= ends[1]]
    heights = [place + shift.uniform(-0.2, 0.2) for _ in inside]
    axes.scatter(inside, heights, s=8, color=color, alpha=0.5, linewidth=0, zorder=3)
    for end, marker, beyond in (
        (ends[0], "<", any(item < ends[0] for item in ratios)),
        (ends[1], ">", any(item > ends[1] for item in ratios)),
    ):
        if beyond:
            axes.scatter([end], [place], s=16, marker=marker, color=color, clip_on=False, zorder=3)
    axes.barh(
        *(place, ratio["q3"] - ratio["q1"], 0.4, ratio["q1"]),
        color=color,
        alpha=0.4,
        linewidth=0,
        zorder=4,
    )
    axes.vlines(ratio["median"], place - 0.27, place + 0.27, color=color, linewidth=2.4, zorder=5)
    if row["budget"] is not None:
        axes.axvline(row["budget"], color=_LIMIT, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)
        axes.annotate(
            *(f"budget {row['budget']:g}{_TIMES}", (row["budget"], 1)),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            color=_LIMIT,
            size=8.5,
            ha="center",
        )


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))

"""One rate over a residual network: the part of the output's change that each weight gets, and its step."""

from __future__ import annotations

from pathlib import Path

from look import BLUE, GREY, INK, PALE, paper, save
from matplotlib.patches import FancyBboxPatch

import modular_manifolds as mm

RATE = 0.1


def network() -> mm.Module:
    block = mm.Series(up=mm.Linear(32, 64), act=mm.ReLU(), down=mm.Linear(64, 32))
    return mm.Series(
        stem=mm.Linear(16, 32),
        block=mm.Residual(block, depth=2) ** 2,
        head=mm.Linear(32, 4, mass=2.0),
    )


def draw(path: Path) -> None:
    rows = mm.budget(network(), lr=RATE).rows
    total = sum(row.mass for row in rows)
    names = ["stem", "up", "down", "up", "down", "head"]

    figure = paper(5.0, 5.2)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(xlim=(0, 10), ylim=(-0.75, len(rows) + 1.15))
    top = len(rows) - 0.5
    heights = [top - i for i in range(len(rows))]
    across, left = 1.75, 4.05
    scale = 3.9 / max(row.step for row in rows)

    axes.plot((across, across), (heights[0] + 0.75, heights[-1] - 0.75), color=GREY, lw=2, zorder=0)
    axes.text(across, heights[0] + 0.95, "input", ha="center", fontsize=12, color=GREY)
    axes.text(across, heights[-1] - 1.05, "output", ha="center", fontsize=12, color=GREY)
    for first in (1, 3):
        # The way around a block, which a residual sum takes as its other half.
        start, end = heights[first] + 0.44, heights[first + 1] - 0.44
        axes.plot(
            (across, 0.45, 0.45, across), (start, start, end, end), color=GREY, lw=2, zorder=0
        )
        middle = (start + end) / 2
        axes.text(0.57, middle, "×½", fontsize=11, color=GREY, va="center")
        axes.text(across + 0.12, middle, "×½", fontsize=11, color=GREY, va="center", zorder=3)
    for name, row, y in zip(names, rows, heights, strict=True):
        box = FancyBboxPatch(
            (across - 0.65, y - 0.27),
            1.3,
            0.54,
            boxstyle="round,pad=0.02",
            fc="white",
            ec=INK,
            lw=1.6,
        )
        axes.add_patch(box)
        axes.text(across, y, name, ha="center", va="center", fontsize=13, color=INK)
        axes.text(left - 0.2, y, f"{row.mass:g}", ha="right", va="center", fontsize=13, color=INK)
        part = RATE * row.mass / total
        axes.barh(y + 0.17, scale * part, height=0.28, left=left, color=PALE)
        axes.barh(y - 0.15, scale * row.step, height=0.28, left=left, color=BLUE)
        axes.text(
            left + scale * row.step + 0.15,
            y - 0.15,
            f"{row.step:.3f}",
            va="center",
            fontsize=12,
            color=BLUE,
        )
    axes.text(left - 0.2, heights[0] + 0.95, "mass", ha="right", fontsize=12, color=INK)
    y = heights[0] + 1.0
    axes.text(left, y + 0.25, "part of the change of the output", fontsize=12, color=GREY)
    axes.text(left, y - 0.15, "step of the weight", fontsize=12, color=BLUE)
    steps = ", ".join(f"{row.path} {row.step:.4f}" for row in rows)
    save(figure, path, description=f"steps: {steps}")

"""The name of the method for each pair of manifold and norm: one cell a pair, from the table of solvers."""

from __future__ import annotations

import textwrap
from pathlib import Path

from look import GREY, INK, paper, save
from matplotlib.patches import Rectangle

import modular_manifolds as mm

COLUMNS = (
    ("Frobenius", ("Frobenius",)),
    ("Spectral,\nRMSOperator", ("Spectral", "RMSOperator")),
    ("RowRMS", ("RowRMS",)),
    ("Max", ("Max",)),
)
"""The two spectral norms have the same methods, so they share a column."""


def methods() -> dict[str, dict[str, str]]:
    """The method by manifold and norm, in the order of the table."""
    found: dict[str, dict[str, str]] = {}
    for pair in mm.solvers.pairs():
        found.setdefault(pair.manifold.__name__, {})[pair.norm.__name__] = pair.method
    return found


def draw(path: Path) -> None:
    rows = methods()
    figure = paper(5.2, 0.75 + 1.05 * len(rows))
    axes = figure.add_axes((0.01, 0.005, 0.98, 0.99))
    axes.set_axis_off()
    axes.set(xlim=(0, 4), ylim=(-len(rows), 0.7))
    for x, (title, _) in enumerate(COLUMNS):
        axes.text(
            x + 0.5, 0.35, title, ha="center", va="center", fontsize=12, weight="bold", color=INK
        )
    for y, (manifold, by_norm) in enumerate(rows.items()):
        axes.text(0.04, -y - 0.14, manifold, fontsize=12, weight="bold", color=INK, va="center")
        axes.plot((0, 4), (-y, -y), color=GREY, lw=1)
        for x, (_, norms) in enumerate(COLUMNS):
            said = {by_norm.get(norm) for norm in norms}
            assert len(said) == 1, f"{manifold}: {norms} have different methods"
            method = said.pop()
            cell = Rectangle((x + 0.03, -y - 0.96), 0.94, 0.68, lw=0)
            cell.set_facecolor("#e3f2fd" if method else "#f5f5f5")
            axes.add_patch(cell)
            text = textwrap.fill(method, 15, break_long_words=False) if method else "–"
            axes.text(
                x + 0.5,
                -y - 0.62,
                text,
                ha="center",
                va="center",
                fontsize=10,
                linespacing=1.1,
                color=INK if method else GREY,
            )
    cells = (
        f"{manifold} × {norm}: {method}"
        for manifold, by_norm in rows.items()
        for norm, method in by_norm.items()
    )
    save(figure, path, description="; ".join(cells))

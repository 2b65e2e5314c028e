"""The pictures of a run and of reports; `as_svg` makes each a self-contained file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from modular_manifolds.certificates import (
    ActivationReport,
    ConditioningReport,
    LipschitzReport,
    RobustnessReport,
)
from modular_manifolds.composition import Budget
from modular_manifolds.nn import Module

INK: Final = "#3b4252"
FAINT: Final = "#9aa3b2"
COLOURS: Final = ("#2f6fde", "#d9622b", "#2c9c69", "#8f5bd6", "#c23b6b", "#77808f")
STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ef",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "modular-manifolds",
}


def learning(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Loss and accuracy by step, from the rows of `metrics.jsonl`."""
    steps = [row for row in metrics if "loss" in row]
    measured = [row for row in metrics if "test_accuracy" in row]
    with rc_context(STYLE):
        figure, (left, right) = panels(2)
        left.plot(*_columns(steps, "step", "loss"), color=COLOURS[0], lw=1.2, label="training")
        test = _columns(measured, "step", "test_loss")
        left.plot(*test, "o-", ms=3, lw=1.2, color=COLOURS[1], label="test")
        left.legend(loc="upper right")
        title = "Loss, batch by batch and on the test part"
        left.set(xlabel="step", ylabel="loss", title=title, ylim=(0, None))
        for part, colour in (("train", COLOURS[0]), ("test", COLOURS[1])):
            at, accuracy = _columns(measured, "step", f"{part}_accuracy")
            label = part.replace("train", "training")
            percent = [100 * each for each in accuracy]
            right.plot(at, percent, "o-", ms=3, lw=1.2, color=colour, label=label)
        right.set(xlabel="step", ylabel="accuracy (%)", title="Accuracy at each evaluation")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(loc="lower right")
        return figure


def singular_values(before: Module, after: Module) -> Figure:
    """Every singular value of every weight, before the first step and after the last."""
    old, new = _spectra(before), _spectra(after)
    with rc_context(STYLE):
        figure, axes = panels(len(old))
        for axis, path in zip(axes, old, strict=True):
            for spectrum, label, colour, width in (
                (old[path], "before", FAINT, 3.0),
                (new[path], "after", COLOURS[0], 1.4),
            ):
                # A vector has one singular value, which a line would not show.
                marker = "o" if len(spectrum) == 1 else None
                at = range(1, len(spectrum) + 1)
                axis.plot(at, spectrum, color=colour, lw=width, marker=marker, label=label)
            # A frozen bias of zeros would leave the axis no height.
            top = max(*old[path], *new[path]) or 1.0
            axis.set(title=path, xlabel="index", ylim=(0, 1.15 * top))
        axes[0].set_ylabel("singular value")
        axes[0].legend(loc="lower left")
        return figure


def split(budget: Budget) -> Figure:
    """Each weight's share of the learning rate."""
    shares = {row.path: row.share for row in budget.rows}
    return _bars(shares, "share of the learning rate")


def steps(budget: Budget) -> Figure:
    """The length of each weight's step, in the weight's own norm."""
    lengths = {row.path: row.step for row in budget.rows}
    return _bars(lengths, f"step at lr={budget.lr:g}, in the weight's own norm")


def _bars(lengths: Mapping[str, float], label: str) -> Figure:
    with rc_context(STYLE):
        figure, axis = _by_weight(len(lengths))
        bars = axis.barh(list(lengths), list(lengths.values()), color=COLOURS[0], height=0.6)
        axis.bar_label(bars, [f"{each:.3g}" for each in lengths.values()], padding=4, fontsize=8)
        axis.set(xlabel=label, title="How one learning rate is split")
        axis.margins(x=0.1)
        return figure


def spectra(report: ConditioningReport) -> Figure:
    """The range of singular values of each weight, from the smallest to the largest, on a logarithmic axis.

    A smallest value of zero has no place on the axis: only the largest is drawn.
    """
    rows = report.rows
    places = range(len(rows))
    low = [row.smallest if row.smallest > 0 else row.largest for row in rows]
    high = [row.largest for row in rows]
    with rc_context(STYLE):
        figure, axis = _by_weight(len(rows))
        axis.hlines(places, low, high, color=COLOURS[0], lw=3)
        axis.plot(low, places, "|", color=COLOURS[0], ms=9, mew=2)
        axis.plot(high, places, "|", color=COLOURS[0], ms=9, mew=2)
        axis.set_yticks(places, [row.path for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        if any(value > 0 for value in high):
            axis.set_xscale("log")
            # Values that agree to rounding would be told apart by their last digits.
            shown = [value for value in (*low, *high) if value > 0]
            axis.set_xlim(0.8 * min(shown), 1.25 * max(shown))
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel="singular values, smallest to largest", title="Range of each weight")
        return figure


def _by_weight(count: int) -> tuple[Figure, Axes]:
    """An axis with a row for each of `count` weights, the first on top."""
    figure = new_figure((8.4, 0.9 + 0.32 * count))
    axis = figure.subplots()
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return figure, axis


def certified(report: RobustnessReport) -> Figure:
    """Certified accuracy against the l2 radius; dots at the radii of the table."""
    radii = sorted(each for each in report.radii if 0 < each < math.inf)
    shown = [row.radius for row in report.rows]
    far = 1.05 * max([*radii, *shown, 1e-12])
    xs = [0.0, *radii, far]
    with rc_context(STYLE):
        figure = new_figure((8.4, 2.9))
        axis = figure.subplots()
        ys = [100 * report.certified(each) for each in xs]
        # Certified accuracy falls at each point's own radius and is constant in between.
        axis.step(xs, ys, where="post", color=COLOURS[0], lw=1.4)
        axis.plot(shown, [100 * row.certified for row in report.rows], "o", color=COLOURS[1], ms=4)
        axis.set(
            xlabel=f"l2 radius ({report.unit})",
            ylabel="accuracy (%)",
            title="Certified accuracy",
            xlim=(0, far),
            ylim=(0, 102),
        )
        return figure


def bounds(slopes: LipschitzReport, sizes: ActivationReport) -> Figure:
    """A figure that shows which module spends the bound: its slope, certified and found, and the size of its output."""
    names = [f"{row.path or '(whole)'} {row.label}" for row in slopes.rows]
    places = range(len(names))
    with rc_context(STYLE):
        figure = new_figure((8.4, 1.3 + 0.3 * len(names)))
        left, right = figure.subplots(1, 2, sharey=True)
        for axis, rows in (
            (left, [(row.certified, row.empirical) for row in slopes.rows]),
            (right, [(row.output.certified, row.output.measured) for row in sizes.rows]),
        ):
            certified = [value if math.isfinite(value) else math.nan for value, _ in rows]
            seen = [math.nan if value is None else value for _, value in rows]
            axis.barh(places, certified, color=COLOURS[0], height=0.62, label="certified")
            axis.plot(seen, places, "|", color=COLOURS[1], ms=9, mew=2, label="found")
            for place, (value, _) in enumerate(rows):
                if not math.isfinite(value):
                    axis.annotate(" no finite bound", (0, place), va="center", color=COLOURS[4])
            axis.grid(axis="y", visible=False)
            axis.set_xlim(left=0)
        left.set_yticks(places, names)
        left.invert_yaxis()
        left.set(xlabel="slope in the module's own norms", title="Slope of each module")
        right.set(
            xlabel=f"norm, for inputs within {sizes.radius:.3g} in {sizes.norm}",
            title="Size of what it gives",
        )
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
        return figure


def _columns(rows: Sequence[dict[str, Any]], *keys: str) -> list[list[Any]]:
    return [[row[key] for row in rows] for key in keys]


def _spectra(net: Module) -> dict[str, list[float]]:
    return {
        path: torch.linalg.svdvals(p.detach().double().reshape(p.shape[0], -1)).tolist()
        for path, p in net.named_parameters()
    }


COLUMNS: Final = 3
"""The number of axes in a row of a figure."""


class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not `matplotlib.pyplot` was imported."""

    def _repr_svg_(self) -> str:
        # Text is dark, so a dark notebook needs the white behind it.
        return as_svg(self)


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of this width and height in inches."""
    figure = Picture(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes in rows of three."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = new_figure((8.4, 2.7 * rows))
    axes = [axis for row in figure.subplots(rows, columns, squeeze=False) for axis in row]
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def as_svg(figure: Figure) -> str:
    """The figure as text on a white ground, for light and dark pages; the same for the same figure."""
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()

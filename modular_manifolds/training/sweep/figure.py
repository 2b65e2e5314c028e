"""The picture of a sweep: loss by learning rate, with one panel for each arm and one curve for each size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from modular_manifolds.training.figures import STYLE, as_svg, panels
from modular_manifolds.training.sweep.summary import Curve, Summary


def transfer(found: Sequence[Summary]) -> str:
    """Validation loss by learning rate on a log₂ axis; the best rate of each size is marked."""
    with rc_context(STYLE):
        figure, axes = panels(len(found))
        shown = _loss_range(found)
        for axis, summary in zip(axes, found, strict=True):
            shades = colormaps["viridis"]
            for place, curve in enumerate(summary.curves):
                _draw(axis, curve, shades(0.85 * place / max(1, len(summary.curves) - 1)))
            axis.set(title=str(summary.arm), xlabel="learning rate", ylim=shown)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 4, 10]))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{x:g}}}$"))
        axes[0].set_ylabel("validation loss")
        axes[0].legend(loc="best", fontsize=8)
        return as_svg(figure)


def _draw(axis: Axes, curve: Curve, colour: tuple[float, float, float, float]) -> None:
    known = {notch / 2: loss for notch, loss in curve.losses.items() if math.isfinite(loss)}
    axis.plot(
        list(known), list(known.values()), "o-", color=colour, ms=2.5, lw=1.2, label=str(curve.size)
    )
    if curve.best is not None:
        best = curve.best / 2, curve.losses[curve.best]
        axis.plot(*best, "*", color=colour, ms=11, mec="white", mew=0.7, zorder=3)


def _loss_range(found: Sequence[Summary]) -> tuple[float, float] | None:
    """The common range of losses, without runs that learnt almost nothing, which would flatten the curves."""
    best = [
        curve.losses[curve.best]
        for summary in found
        for curve in summary.curves
        if curve.best is not None
    ]
    if not best:
        return None
    low, high = min(best), max(best)
    room = max(high - low, 0.15 * high)
    return low - 0.3 * room, high + 2 * room

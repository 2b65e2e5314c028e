"""The picture of a sweep: loss against learning rate, a panel an arm, a curve a size."""

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
        top = _top(found)
        for axis, summary in zip(axes, found, strict=True):
            shades = colormaps["viridis"]
            for place, curve in enumerate(summary.curves):
                _draw(axis, curve, shades(0.85 * place / max(1, len(summary.curves) - 1)))
            axis.set(title=str(summary.arm), xlabel="learning rate", ylim=(None, top))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 4, 10]))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{x:g}}}$"))
        axes[0].set_ylabel("validation loss")
        axes[0].legend(loc="best")
        return as_svg(figure)


def _draw(axis: Axes, curve: Curve, colour: tuple[float, float, float, float]) -> None:
    known = {notch / 2: loss for notch, loss in curve.losses.items() if math.isfinite(loss)}
    axis.plot(
        list(known), list(known.values()), "o-", color=colour, ms=2.5, lw=1.2, label=str(curve.size)
    )
    if curve.best is not None:
        best = curve.best / 2, curve.losses[curve.best]
        axis.plot(*best, "*", color=colour, ms=11, mec="white", mew=0.7, zorder=3)


def _top(found: Sequence[Summary]) -> float | None:
    """What the panels show at most: the runs that learnt next to nothing would flatten the rest."""
    curves = [curve for summary in found for curve in summary.curves]
    finite = [loss for each in curves for loss in each.losses.values() if math.isfinite(loss)]
    best = [each.losses[each.best] for each in curves if each.best is not None]
    if not best:
        return None
    low, high = min(best), max(best)
    return min(max(finite), high + max(high - low, 0.3 * low)) * 1.02

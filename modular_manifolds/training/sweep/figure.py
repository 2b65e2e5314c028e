"""The picture of a sweep: loss by learning rate, with one panel for each arm and one curve for each size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from modular_manifolds.training.figures import STYLE, as_svg, panels
from modular_manifolds.training.sweep.summary import Summary

Losses = Mapping[float, float]
"""The loss by log₂ of the learning rate, infinite if a run diverged."""


@dataclass(frozen=True)
class Panel:
    """One arm's curves.

    Args:
        title: the arm's name.
        curves: the losses of each size, by its label, the smallest size first.
    """

    title: str
    curves: Mapping[str, Losses]


def panel(summary: Summary) -> Panel:
    """The panel of one arm of a sweep."""
    curves = {
        str(curve.size): {notch / 2: loss for notch, loss in curve.losses.items()}
        for curve in summary.curves
    }
    return Panel(summary.arm.title, curves)


def transfer(shown: Sequence[Panel]) -> str:
    """Validation loss by learning rate on a log₂ axis, as SVG; the best rate of each size is marked."""
    with rc_context(STYLE):
        figure, axes = panels(len(shown))
        losses = _loss_range(shown)
        for axis, each in zip(axes, shown, strict=True):
            shades = colormaps["viridis"]
            for place, (label, curve) in enumerate(each.curves.items()):
                colour = shades(0.85 * place / max(1, len(each.curves) - 1))
                _draw(axis, label, _finite(curve), colour)
            axis.set(title=each.title, xlabel="learning rate", ylim=losses)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 4, 10]))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{x:g}}}$"))
        axes[0].set_ylabel("validation loss")
        axes[0].legend(loc="best", fontsize=8)
        return as_svg(figure)


def _finite(curve: Losses) -> dict[float, float]:
    return {rate: loss for rate, loss in sorted(curve.items()) if math.isfinite(loss)}


def _draw(axis: Axes, label: str, known: Losses, colour: tuple[float, float, float, float]) -> None:
    axis.plot(list(known), list(known.values()), "o-", color=colour, ms=2.5, lw=1.2, label=label)
    if known:
        best = min(known, key=lambda rate: known[rate])
        axis.plot(best, known[best], "*", color=colour, ms=11, mec="white", mew=0.7, zorder=3)


def _loss_range(shown: Sequence[Panel]) -> tuple[float, float] | None:
    """The common range of losses, without runs that learnt almost nothing, which would flatten the curves."""
    curves = [_finite(curve) for each in shown for curve in each.curves.values()]
    best = [min(known.values()) for known in curves if known]
    if not best:
        return None
    low, high = min(best), max(best)
    room = max(high - low, 0.15 * high)
    return low - 0.3 * room, high + 2 * room

"""The search by numbers finds the minimum of any convex function between two lines, with and without Newton's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from modular_manifolds.solvers.search import Line, Search, search

Values = Callable[[float], tuple[float, float, float]]
"""φ, its slope, and Newton's next λ."""


def smooth(x: float) -> tuple[float, float, float]:
    """`1 + log cosh(x − 0.3)`: Newton's steps from far away are much too long."""
    t = math.tanh(x - 0.3)
    return 1 + math.log(math.cosh(x - 0.3)), t, x - t / max(1 - t * t, 1e-9)


def kinked(x: float) -> tuple[float, float, float]:
    """`1 + |x − 0.3|`, with steps of Newton that are much too short."""
    slope = math.copysign(1.0, x - 0.3)
    return 1 + abs(x - 0.3), slope, x - 1e-3 * slope


def quadratic(x: float) -> tuple[float, float, float]:
    return 8 + (x - 0.3) ** 2 / 2, x - 0.3, 0.3


def solved(
    functions: Sequence[Values], *, tolerance: float, first: float = -1.0, newton: bool = True
) -> tuple[list[Search], int, list[int]]:
    """The searches, the number of rounds, and the number of trials of each function."""
    searches = [Search(Line(-4.0, 0.0, -1.0), Line(4.0, 0.0, 1.0), 10.0, first) for _ in functions]
    trials = [0] * len(functions)

    def trial(rows: Sequence[int], multipliers: Sequence[float]) -> Tensor:
        numbers = []
        for row, x in zip(rows, multipliers, strict=True):
            trials[row] += 1
            value, slope, following = functions[row](x)
            numbers.append((value - slope * x, slope, value, following if newton else math.nan))
        return torch.tensor(numbers, dtype=torch.float64)

    rounds = search(searches, trial, tolerance=tolerance, rounds=60, meet_every=1)
    return searches, rounds, trials


@pytest.mark.parametrize("newton", [True, False])
@pytest.mark.parametrize("function", [smooth, kinked, quadratic])
def test_it_finds_the_minimum(function: Values, newton: bool) -> None:
    for tolerance, first in ((1e-2, -1.0), (1e-6, 3.0)):
        [found], rounds, _ = solved([function], tolerance=tolerance, first=first, newton=newton)
        assert rounds <= 20
        assert found.gap <= tolerance
        assert 0 <= found.best - function(0.3)[0] <= found.gap * found.best
        assert found.low.slope <= 0 < found.high.slope


def test_newtons_step_saves_trials() -> None:
    """If all trials are on one side, the lines meet far away."""
    counts = [
        [solved([quadratic], tolerance=1e-2, first=first, newton=newton)[1] for first in (-1, 1, 2)]
        for newton in (True, False)
    ]
    assert max(counts[0]) <= 3
    assert sum(counts[0]) < 0.6 * sum(counts[1])


def test_each_stops_by_its_own_gap() -> None:
    functions = (smooth, quadratic, kinked)
    together, rounds, trials = solved(functions, tolerance=1e-3)
    assert rounds == max(trials)
    assert len(set(trials)) > 1
    for i, function in enumerate(functions):
        [alone], alone_rounds, _ = solved([function], tolerance=1e-3)
        assert alone_rounds == trials[i]
        assert (alone.low.multiplier, alone.high.multiplier) == (
            together[i].low.multiplier,
            together[i].high.multiplier,
        )


def test_a_function_of_zero_needs_no_trial() -> None:
    nothing = Search(Line(0.0, 0.0, -1.0), Line(0.0, 0.0, 1.0), 0.0)
    assert nothing.gap == 0
    assert search([nothing], lambda *_: torch.empty(0), tolerance=0.0, rounds=9, meet_every=1) == 0


def test_without_a_slope_there_is_no_constraint() -> None:
    """The last trial counts alone, and nothing is divided by zero."""
    flat = Search(Line(-1.0, 0.0, 0.0), Line(1.0, 0.0, 0.0), 5.0)
    assert -1 <= flat.aim(1, meet_every=1) <= 1
    flat.close(Line(0.0, 2.0, 0.0, trial=(0, 0)), 2.0)
    assert flat.gap == 0
    assert flat.weight == 1

"""The search: a fixed number of runs finds the best point of a valley, with one value and with two."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from arena.search import Point, best_point, is_finished, next_point, values_at

ONE = ((1,),)
RATES = ((1, 1), (0, 1), (1, 0))
RATE_AND_SCALE = ((1, 0), (0, 1), (1, 1))


def searched(
    loss: Callable[[Point], float], directions: tuple[Point, ...], runs: int
) -> dict[Point, float]:
    losses: dict[Point, float] = {}
    for _ in range(runs):
        point = next_point(losses, directions)
        assert point not in losses
        losses[point] = loss(point)
    return losses


@pytest.mark.parametrize("valley", [-5, -2, 0, 1, 4, 7])
def test_one_rate_is_found_to_a_notch(valley: int) -> None:
    losses = searched(lambda p: abs(p[0] - valley), ONE, 12)
    assert best_point(losses) == (valley,)
    assert is_finished(losses, ONE)


def test_runs_that_are_left_widen_the_curve_to_four_times_the_rate() -> None:
    losses = searched(lambda p: p[0] ** 2, ONE, 7)
    assert set(losses) == {(0,), (2,), (-2,), (1,), (-1,), (4,), (-4,)}


def test_values_that_diverge_are_left() -> None:
    losses = searched(lambda p: math.inf if p[0] > -3 else abs(p[0] + 4), ONE, 12)
    assert best_point(losses) == (-4,)


def test_two_rates_move_together_and_then_the_second_alone() -> None:
    losses = searched(lambda p: (p[0] - 2) ** 2 + (p[1] + 1) ** 2, RATES, 30)
    assert list(losses)[:4] == [(0, 0), (2, 2), (-2, -2), (0, 2)]
    assert best_point(losses) == (2, -1)
    assert is_finished(losses, RATES)


def test_a_rate_and_a_scale_move_each_alone() -> None:
    losses = searched(lambda p: (p[0] + 6) ** 2 + (p[1] - 4) ** 2, RATE_AND_SCALE, 30)
    assert list(losses)[:4] == [(0, 0), (2, 0), (-2, 0), (-4, 0)]
    assert best_point(losses) == (-6, 4)
    assert is_finished(losses, RATE_AND_SCALE)


def test_a_search_that_has_not_seen_all_neighbours_is_not_finished() -> None:
    assert not is_finished({}, ONE)
    assert not is_finished(searched(lambda p: p[0] ** 2, ONE, 4), ONE)


def test_a_notch_is_a_factor_of_the_root_of_two() -> None:
    assert values_at((0.5, 8.0), (2, -1)) == (1.0, 5.6568542)

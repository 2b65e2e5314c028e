"""Plans of sweeps, and the arithmetic of their summaries."""

from __future__ import annotations

import math
from typing import Any

import pytest

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.training.sweep import Arm, Plan, summaries
from modular_manifolds.training.sweep.figure import panel, transfer
from modular_manifolds.training.sweep.outcome import Outcome
from modular_manifolds.training.sweep.plan import Point, Size, parse_range, parse_sizes
from modular_manifolds.training.sweep.results import Result
from modular_manifolds.training.sweep.summary import Curve, Summary


class TestPlan:
    @pytest.mark.parametrize(
        ("text", "ends"),
        [("2^-6..2^1", (-12, 2)), ("2^-1.5..2^0.5", (-3, 1)), ("2^3..2^3", (6, 6))],
    )
    def test_a_range_is_notches_of_the_root_of_two(self, text: str, ends: tuple[int, int]) -> None:
        assert parse_range(text, argument="--lr") == ends

    @pytest.mark.parametrize(
        "text", ["", "0.1..1", "2^1..2^0", "2^0.3..2^1", "2^0", "2^0..2^1..2^2"]
    )
    def test_other_ranges_are_refused(self, text: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            parse_range(text, argument="--lr")
        assert str(caught.value) == (
            f"--lr must be a range of powers of two, the lower first, got {text!r}. "
            "Write it as 2^-6..2^1; an exponent is whole or ends in .5."
        )

    def test_rates_are_exact_powers(self) -> None:
        rate = {notch: Point(Size(), Arm("adamw"), notch, 0).lr for notch in range(-12, 5)}
        assert all(rate[k] == 2.0 ** (k / 2) for k in rate)
        assert (rate[-12], rate[0], rate[2]) == (2.0**-6, 1.0, 2.0)

    def test_sizes_are_all_combinations(self) -> None:
        sizes = parse_sizes(["model.width=32,64", "model.depth=2, 8"])
        assert [str(each) for each in sizes] == [
            "width=32, depth=2",
            "width=32, depth=8",
            "width=64, depth=2",
            "width=64, depth=8",
        ]
        assert parse_sizes([]) == (Size(),)

    @pytest.mark.parametrize("text", ["model.width", "=3", "model.width=", "model.width=3,,4"])
    def test_other_sizes_are_refused(self, text: str) -> None:
        with pytest.raises(ArgumentError, match="--over must read KEY=VALUE"):
            parse_sizes([text])

    def test_an_arm_is_an_optimizer_and_assignments(self) -> None:
        arm = Arm("adamw,optimizer.betas=[0.8, 0.9],optimizer.weight_decay=0.1")
        assert arm.assignments == (
            "optimizer.name=adamw",
            "optimizer.betas=[0.8, 0.9]",
            "optimizer.weight_decay=0.1",
        )

    @pytest.mark.parametrize(
        ("grid", "notches"), [("full", [0, 1, 2, 3]), ("coarse", [0, 2]), ("refined", [0, 2])]
    )
    def test_points(self, grid: Any, notches: list[int]) -> None:
        plan = Plan(mm.RunSpec(seed=5), (Size(),), {Arm("adamw"): (0, 3)}, grid, seeds=2)
        assert [(each.notch, each.seed) for each in plan.points()] == [
            (notch, seed) for notch in notches for seed in (5, 6)
        ]
        assert {each.notch for each in plan.neighbours(Arm("adamw"), Size(), 0)} == {1}
        assert {each.notch for each in plan.neighbours(Arm("adamw"), Size(), 2)} == {1, 3}


SMALL, LARGE = Size(("model.width=1",)), Size(("model.width=2",))


def made_up(size: Size, losses: dict[int, float | list[float | None]]) -> list[Result]:
    return [
        Result(
            Point(size, Arm("adamw"), notch, seed),
            Outcome(loss, loss, None if loss else "the loss at step 3 is nan", 0.0),
        )
        for notch, values in losses.items()
        for seed, loss in enumerate(values if isinstance(values, list) else [values])
    ]


def summed_up(small: dict[int, Any], large: dict[int, Any]) -> Summary:
    results = made_up(SMALL, small) + made_up(LARGE, large)
    (summary,) = summaries(results, [Arm("adamw")], [SMALL, LARGE])
    return summary


class TestSummary:
    def test_the_best_rates_and_how_far_they_move(self) -> None:
        summary = summed_up({-2: 3.0, 0: 1.0, 1: 2.0}, {-2: 0.5, 0: 0.75, 1: 4.0})
        assert [curve.best for curve in summary.curves] == [0, -2]
        assert [curve.edge for curve in summary.curves] == [None, "lowest"]
        assert summary.rate_shift == 2
        assert summary.transfer_cost == pytest.approx(50.0)

    def test_seeds_are_averaged(self) -> None:
        summary = summed_up({0: [1.0, 4.0], 1: [2.0, 2.0]}, {0: 1.0, 1: 2.0})
        assert summary.curves[0].losses == {0: 2.5, 1: 2.0}
        assert summary.curves[0].edge == "highest"
        assert (summary.rate_shift, summary.transfer_cost) == (1, pytest.approx(100.0))

    def test_a_rate_at_which_one_seed_diverged_is_not_the_best(self) -> None:
        summary = summed_up({0: 3.0, 1: [1.0, None], 2: 4.0}, {0: [None], 1: 2.0})
        assert summary.curves[0].best == 0
        assert summary.transfer_cost == math.inf

    def test_a_best_rate_beside_one_that_diverged_is_not_at_the_edge(self) -> None:
        assert summed_up({0: 3.0, 1: 1.0, 2: [None]}, {0: 1.0}).curves[0].edge is None

    def test_where_everything_diverged_nothing_is_claimed(self) -> None:
        summary = summed_up({0: [None], 1: [None]}, {0: 1.0, 1: 2.0})
        assert summary.curves[0].best is None
        assert summary.curves[0].edge is None
        assert (summary.rate_shift, summary.transfer_cost) == (None, None)

    def test_a_rate_that_was_not_tried_at_the_largest_size_carries_nothing(self) -> None:
        assert summed_up({0: 1.0, 1: 2.0}, {1: 2.0}).transfer_cost is None

    def test_of_equal_losses_the_lower_rate_is_the_best(self) -> None:
        assert Curve(SMALL, {1: 1.0, 0: 1.0}).best == 0

    def test_the_picture_can_be_drawn_whatever_diverged(self) -> None:
        diverged = panel(summed_up({0: [None], 1: [None]}, {0: 1.0, 1: 2.0, 2: 300.0}))
        picture = transfer([diverged])
        assert picture == transfer([diverged])
        assert "<svg" in picture
        assert "<svg" in transfer([panel(summed_up({0: [None]}, {0: [None]}))])

    @pytest.mark.parametrize(
        ("arm", "title"),
        [
            ("steepest-descent", "Steepest descent"),
            ("adamw,optimizer.weight_decay=0.1", "AdamW, weight_decay 0.1"),
            ("muon,model.x=1,data.y=a=b", "Muon, x 1, y a=b"),
        ],
    )
    def test_a_panel_is_titled_in_words(self, arm: str, title: str) -> None:
        assert panel(Summary(Arm(arm), ())).title == title

"""A sensitivity is a bound for inputs in the unit ball, of every module; a typical slope is a rate scale."""

from __future__ import annotations

import math
from dataclasses import replace

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.composition import SAME, Signature
from modular_manifolds.errors import ArgumentError
from modular_manifolds.testing import Sample
from modular_manifolds.testing.module_laws import sensitivity_holds_in_the_unit_ball

EXACT = Sample((5,), torch.float64)


def test_a_typical_slope_is_refuted_as_a_sensitivity() -> None:
    """The laws measure it, also in a bond whose own function of the radius repeats the mistake."""

    class Amplify(mm.Amplify):
        def lipschitz_within(self, radius: float) -> float:
            del radius
            return self.typical

    class Attention(mm.CausalAttention):
        def lipschitz_within(self, radius: object) -> float:
            del radius
            return self.typical

    for module, sensitivity in (
        (mm.Amplify(3.0, typical=0.5), 0.5),
        (Amplify(3.0, typical=0.5), 0.5),
        (mm.CausalAttention(4, scale=128.0), 1.0),
        (Attention(4, scale=128.0), 1.0),
    ):
        module._own = replace(module._own, sensitivity=sensitivity)  # pyright: ignore
        with pytest.raises(AssertionError, match="sensitivity bounds the slope"):
            sensitivity_holds_in_the_unit_ball(module, EXACT)


def test_a_language_model_has_a_sensitivity_that_bounds_it() -> None:
    net = cases.in_double(mm.models.GPT(5, width=4, depth=1, heads=1, attention_scale=8.0))
    assert net.sensitivity > net.rate_scale == pytest.approx(8.0)
    assert net.sensitivity == pytest.approx(mm.lipschitz(net, radius=1.0, input_norm="l1").declared)
    sensitivity_holds_in_the_unit_ball(net, EXACT)


def test_sizes_that_leave_the_unit_ball_are_counted_in_a_sensitivity() -> None:
    """Attention behind a factor of 3 sees keys and values of rms 3: a product of sensitivities would be no bound."""
    line = mm.Linear(4, 4, norm=mm.RMSOperator())
    net = 3.0 * line >> mm.Parallel(mm.Identity(), mm.Identity(), mm.Identity())
    assert net.sensitivity == 9.0
    assert (net >> mm.CausalAttention(4)).sensitivity == 81.0
    assert (net >> mm.CausalAttention(4)).tree().signature.sensitivity == 9.0
    assert (net >> mm.CausalAttention(4)).rate_scale == 9.0


def test_sharper_attention_raises_the_sensitivity_and_not_the_rate_scale() -> None:
    for scale in (0.5, 1.0, 16.0):
        bond = mm.CausalAttention(4, scale=scale, typical=1 / math.sqrt(max(scale, 1.0)))
        assert bond.sensitivity == max(1.0, scale)
        assert bond.rate_scale == pytest.approx(1.0)


class Unbounded(mm.Bond):
    """A bond that has no Lipschitz bound, and stretches inputs of norm 1 twofold."""

    def __init__(self) -> None:
        super().__init__(sensitivity=math.inf, rate_scale=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.sign() * x.abs().sqrt()


def test_a_module_without_a_bound_composes_by_its_rate_scale() -> None:
    net = mm.Linear(4, 4) >> Unbounded() >> mm.Linear(4, 4)
    assert (net.sensitivity, net.rate_scale) == (math.inf, 2.0)
    budget = mm.budget(net)
    assert [row.share for row in budget.rows] == [0.25, 0.5]
    assert not budget.is_bound
    assert "at most inf" in budget.verdict
    assert math.isinf(mm.lipschitz(net, iterations=1, starts=1).certified)


def test_a_bound_that_overflows_is_infinite_and_refuses_nothing() -> None:
    deep = mm.Amplify(1e200) >> mm.Amplify(1e200)
    assert (deep.sensitivity, deep.rate_scale) == (math.inf, 1.0)
    wide = mm.Parallel(mm.Amplify(1.7e308), mm.Amplify(1.7e308))
    assert (wide.sensitivity, wide.rate_scale) == (math.inf, 2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, "1"])
def test_bad_rate_scales_are_refused(bad: float) -> None:
    with pytest.raises(ArgumentError, match="rate_scale must be finite and positive, got"):
        Signature(0.0, 1.0, None, SAME, rate_scale=bad)
    with pytest.raises(ArgumentError, match=r"Plain\(rate_scale\) must be finite and positive"):
        Plain(bad)


class Plain(mm.Bond):
    def __init__(self, rate_scale: float) -> None:
        super().__init__(rate_scale=rate_scale)

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_without_a_rate_scale_a_bound_must_be_finite() -> None:
    class Boundless(mm.Bond):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ArgumentError, match=r"Boundless\(sensitivity\) must be finite and posit"):
        Boundless(sensitivity=math.inf)
    with pytest.raises(ArgumentError, match=r"Boundless\(sensitivity\) must be finite and posit"):
        Boundless(sensitivity=math.nan, rate_scale=1.0)
    with pytest.raises(ArgumentError, match="sensitivity must be finite and positive"):
        Signature(0.0, math.inf, None, SAME)

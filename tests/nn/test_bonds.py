"""Bonds whose constants are not plain: SiLU, RMSNorm, Dropout, Amplify."""

from __future__ import annotations

import copy
import math
from decimal import Decimal, localcontext
from typing import Any

import cases
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError
from modular_manifolds.nn.bonds import SILU_SLOPE
from modular_manifolds.testing import Sample, check_module
from modular_manifolds.testing.measure import vector_norm

BONDS: dict[str, Any] = {
    "silu": mm.SiLU,
    "rms_norm": lambda: mm.RMSNorm(6),
    "rms_norm, small eps": lambda: mm.RMSNorm(6, eps=1e-2),
    "rms_norm in l2": lambda: mm.RMSNorm(5, eps=4.0, vector_norm="l2"),
    "rms_norm of one": lambda: mm.RMSNorm(1, eps=0.5),
    "dropout": lambda: mm.Dropout(0.4).eval(),
}


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("name", BONDS)
def test_bonds_keep_the_laws(name: str, dtype: torch.dtype) -> None:
    check_module(BONDS[name](), Sample((6,), dtype=dtype))


class LargerSiLU(mm.SiLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


class LargerNorm(mm.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


class LargerFactor(mm.Amplify):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


@pytest.mark.parametrize(
    "make", [LargerSiLU, lambda: LargerNorm(4), lambda: LargerFactor(3.0, typical=0.5)]
)
def test_constants_that_are_too_small_are_refuted(make: Any) -> None:
    with pytest.raises(AssertionError, match="sensitivity bounds the slope"):
        check_module(make(), Sample((4,), dtype=torch.float64))


def test_the_slope_of_silu_is_the_next_number_up() -> None:
    """The root of `x tanh(x/2) = 2` in forty digits, and the slope (x + 2)/4 there."""
    with localcontext() as context:
        context.prec = 40
        low, high = Decimal(2), Decimal(3)
        for _ in range(120):
            middle = (low + high) / 2
            e = middle.exp()
            low, high = (middle, high) if middle * (e - 1) / (e + 1) < 2 else (low, middle)
        slope = (low + 2) / 4
    assert slope < Decimal(str(SILU_SLOPE)) < slope + Decimal("1e-7")
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64).requires_grad_()
    (slopes,) = torch.autograd.grad(functional.silu(x).sum(), x)
    assert float(slopes.abs().amax()) == pytest.approx(float(slope), rel=1e-8)
    own = torch.func.grad(mm.SiLU())(torch.tensor(float(low), dtype=torch.float64))
    assert 1 - 1e-7 < float(own) <= 1.0


@pytest.mark.parametrize("norm", ["rms", "l2"])
def test_the_constant_of_rms_norm_is_attained_at_zero_and_its_outputs_are_bounded(
    norm: Any,
) -> None:
    for eps in (1e-3, 1.0, 7.0):
        net = mm.RMSNorm(5, eps=eps, vector_norm=norm)
        at_zero = torch.func.jacrev(net)(torch.zeros(5, dtype=torch.float64))
        slope = float(torch.linalg.matrix_norm(at_zero, ord=2))
        assert slope * (1 - 1e-12) <= net.sensitivity <= slope * (1 + 1e-12)
        assert net.sensitivity == pytest.approx(1 / math.sqrt(eps))
        for radius in (0.0, 1e-200, 1e-3, 1.0, 1e3, 1e200, math.inf):
            x = torch.randn(50, 5, dtype=torch.float64)
            x = min(radius, 1e100) * x / vector_norm(x, norm).unsqueeze(-1)
            largest = float(vector_norm(net(x), norm).amax())
            bound = net.output_within(radius)
            assert largest * (1 - 1e-15) <= bound <= (1.0 if norm == "rms" else math.sqrt(5))
            assert bound <= max(largest * (1 + 1e-9), 1e-9) or math.isinf(radius)


def test_rms_norm_refuses_spaces_where_its_constant_grows() -> None:
    """In linf the slope of a vector of 400 features is more than four times the constant."""
    x = torch.full((400,), 1.0, dtype=torch.float64)
    x[0] = 12.0
    jacobian = torch.func.jacrev(mm.RMSNorm(400))(x)
    assert float(jacobian.abs().sum(dim=-1).amax()) > 3.0
    for norm in ("linf", "l1"):
        with pytest.raises(ArgumentError, match="for which its Lipschitz bound does not grow"):
            mm.RMSNorm(400, vector_norm=norm)
    with pytest.raises(SpaceError, match=r"l2\[4\] into rms\[4\]"):
        _ = mm.Linear(4, 4) >> mm.RMSNorm(4)
    for eps in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ArgumentError, match=r"RMSNorm\(eps\) must be finite and positive"):
            mm.RMSNorm(4, eps=eps)


def test_rms_norm_is_torch_s() -> None:
    x = torch.randn(3, 4, 6)
    torch.testing.assert_close(mm.RMSNorm(6, eps=0.1)(x), torch.nn.RMSNorm(6, eps=0.1)(x))


def test_the_rounding_in_training_counts_the_mask() -> None:
    """A report bounds the network in its mode, rounding included; evaluation rounds nothing at a dropout."""
    net = mm.Linear(6, 6) >> mm.Dropout(0.25) >> mm.Linear(6, 2)
    training, evaluated = (mm.lipschitz(net.train(mode), radius=1.0) for mode in (True, False))
    assert [report.rows[1].rounding for report in (training, evaluated)] == [
        pytest.approx(2 * torch.finfo(torch.float32).eps / 0.75, rel=1e-5),
        0.0,
    ]
    assert training.rounding is not None
    assert evaluated.rounding is not None
    assert training.rounding > evaluated.rounding / 0.75


def test_dropout_declares_what_holds_in_the_mode_it_is_in() -> None:
    net = mm.Linear(6, 6) >> mm.Dropout(0.25) >> mm.Linear(6, 2)
    assert net.sensitivity == pytest.approx(4 / 3)
    assert mm.lipschitz(net).declared == pytest.approx(4 / 3)
    assert net.training
    net.eval()
    assert net.sensitivity == 1.0
    assert mm.lipschitz(net).declared == pytest.approx(1.0)
    drop = mm.Dropout(0.25)
    x, y = torch.randn(2, 1000, dtype=torch.float64).unbind()
    outputs = []
    for each in (x, y):
        torch.manual_seed(3)
        outputs.append(drop(each))
    kept = outputs[0] != 0
    assert 0.6 < float(kept.double().mean()) < 0.9
    moved = (outputs[0] - outputs[1]).abs()[kept]
    torch.testing.assert_close(moved, (x - y).abs()[kept] * drop.sensitivity)
    assert torch.equal(drop.eval()(x), x)
    for p in (-0.1, 1.0, math.nan):
        with pytest.raises(ArgumentError, match=r"Dropout\(p\) must be at least 0 and below 1"):
            mm.Dropout(p)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_rounding_of_bonds_stays_within_its_bound(dtype: torch.dtype) -> None:
    for name, make in BONDS.items():
        module = make()
        space = module.source or mm.Space(6, "linf")
        for training in (False, True):
            module.train(training)
            for scale in (1e-3, 1.0, 5.0, 1e3):
                x = (scale * torch.randn(300, space.size)).to(dtype)
                torch.manual_seed(0)
                found = module(x).double()
                torch.manual_seed(0)
                exact = copy.deepcopy(module).double()(x.double())
                kept = torch.where(found == 0, 0.0, 1.0) if training else 1.0
                off = vector_norm((found - exact) * kept, space.norm)
                sizes = vector_norm(x.double(), space.norm)
                allowed = [module.rounding_within(float(each), dtype) for each in sizes]
                assert bool((off <= torch.tensor(allowed, dtype=torch.float64)).all()), name
                assert all(math.isfinite(each) for each in allowed)


def test_the_budget_counts_what_is_typical_and_certificates_what_is_certain() -> None:
    atom = cases.in_double(mm.Linear(4, 4))
    net = atom >> mm.Amplify(-3.0, typical=0.5) >> cases.in_double(mm.Linear(4, 2))
    budget = mm.budget(net)
    assert net.sensitivity == pytest.approx(3.0)
    assert net.rate_scale == pytest.approx(0.5)
    assert [row.downstream for row in budget.rows] == [0.5, 1.0]
    assert [row.slope for row in budget.rows] == [3.0, 1.0]
    # Half of the mass each: the first weight's step is twice as long, and may move the output three times as far.
    assert budget.first_order == pytest.approx(0.5 / 0.5 * 3.0 + 0.5 * 3.0)
    assert mm.lipschitz(net).declared == pytest.approx(3.0)
    torch.testing.assert_close(mm.Amplify(-3.0)(torch.ones(2)), torch.full((2,), -3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0.0}, r"Amplify\(factor\) must be finite and not 0"),
        ({"factor": math.inf}, r"Amplify\(factor\) must be finite and not 0"),
        ({"factor": 2.0, "typical": 0.0}, r"Amplify\(typical\) must be finite and positive"),
    ],
)
def test_amplify_refuses_what_it_cannot_use(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mm.Amplify(**arguments)

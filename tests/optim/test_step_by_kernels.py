"""The way of the kernels through a step, by the operators' own torch: it leads where torch's operators on lists lead."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor
from weights import Weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.linalg import backend
from modular_manifolds.optim import descent, landing, on_device, settings, whole
from modular_manifolds.solvers import skew_sign

SHAPES = ((9, 4), (9, 4), (4, 9), (2, 5, 3), (5,))
HOW: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.9, "tangent_momentum": True},
    {"momentum": 0.9, "noise_damping": True},
]
PAIRS = [
    (mm.Stiefel(), mm.Spectral()),
    (mm.Euclidean(), mm.RowRMS()),
    (mm.Oblique(), mm.RowRMS()),
    (mm.Euclidean(), mm.Max()),
]


@pytest.fixture(autouse=True)
def without_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps take the way of an accelerator, and plans are made anew."""
    for module in (whole, on_device, settings):
        monkeypatch.setattr(module, "readable", lambda _: False)
    plans = vars(skew_sign)["_plan"]
    plans.cache_clear()
    yield
    plans.cache_clear()


def stepped(net: mm.Module, how: dict[str, Any]) -> list[Tensor]:
    """The weights and their state after a few steps, one of which has NaN in a gradient."""
    opt = mm.SteepestDescent(net, 0.1, on_nonfinite="skip", **how)
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        for place, p in enumerate(net.parameters()):
            give_gradient(p, generator)
            assert p.grad is not None
            if number == 2 and place == 1:
                p.grad.flatten()[0] = torch.nan
            if number == 3:
                p.grad[0] = 0.0
            if number == 4 and place == 0:
                p.grad.zero_()
        opt.step()
    opt.check()
    assert opt.skipped == 1
    state = [value for p in net.parameters() for _, value in sorted(opt.state[p].items())]
    return [*(p.detach() for p in net.parameters()), *state]


PAIRWISE = [
    (*pair, how, (torch.float32, torch.bfloat16)[(i + j) % 2])
    for i, pair in enumerate(PAIRS)
    for j, how in enumerate(HOW)
]
"""Every pair in every way, and both of these in both dtypes."""


@pytest.mark.parametrize(("manifold", "norm", "how", "dtype"), PAIRWISE, ids=str)
def test_both_ways_lead_to_the_same_weights_and_state(
    manifold: mm.Manifold,
    norm: mm.Norm,
    how: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "weight_decay" in how and manifold.fixed_size:
        how = {name: value for name, value in how.items() if name != "weight_decay"}
    torch.manual_seed(0)
    weights = (Weight(manifold, norm, shape) for shape in SHAPES)
    net = reduce(lambda f, g: f >> g, weights).to(dtype)
    twin = copy.deepcopy(net)
    wanted = stepped(net, how)
    calls: list[str] = []
    places = {
        "descend_by_kernels_": descent,
        "land_by_kernels_": landing,
        "gate_by_kernels_": on_device,
    }
    module: Any
    for name, module in places.items():
        door = getattr(module, name)

        def noted(*args: Any, name: str = name, door: Any = door, **named: Any) -> Any:
            calls.append(name)
            return door(*args, **named)

        monkeypatch.setattr(module, name, noted)
    monkeypatch.setattr(backend.kernels, "why_not", lambda _: None)
    monkeypatch.setattr(backend.kernels, "why_not_on", lambda *_: None)
    vars(skew_sign)["_plan"].cache_clear()
    found = stepped(twin, how)
    assert "gate_by_kernels_" in calls
    if norm.coupled_dims and "noise_damping" not in how:
        assert {"descend_by_kernels_", "land_by_kernels_"} <= set(calls)
    # Polynomials by different products, and bfloat16 weights are the rounding of their masters.
    close = 1e-2 if dtype is torch.bfloat16 or isinstance(manifold, mm.Stiefel) else 1e-5
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=close, rtol=close)

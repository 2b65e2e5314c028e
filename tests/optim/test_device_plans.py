"""The plans of a step that reads no number follow the gaps of the steps before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reading_nothing import give_gradients, network, snapshot
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.bucket import QUIET_STEPS, Bucket
from modular_manifolds.optim.weight import Weight as Known
from modular_manifolds.solvers import plan
from modular_manifolds.solvers.closed_form import NormSteepest
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution


def buckets_of(opt: mm.SteepestDescent) -> list[Any]:
    steps: Any = opt._steps  # pyright: ignore[reportPrivateUsage]
    return steps._roster.buckets


def test_a_tensor_that_grows_beyond_the_plans_is_refused_at_once_on_the_host() -> None:
    net = network(mm.Stiefel(), mm.Spectral(), count=1)
    opt = mm.SteepestDescent(net, torch.tensor(0.1))
    give_gradients(net, 9)
    opt.param_groups[0]["lr"].fill_(0.5)
    opt.step()
    before = snapshot(net, opt)
    opt.param_groups[0]["lr"].fill_(0.6)
    with pytest.raises(ArgumentError, match=r"lr of 'weight' must be .* at most 0\.5 as a tensor"):
        opt.step()
    assert all(map(torch.equal, snapshot(net, opt), before))
    for norm in (mm.Frobenius(), mm.Max()):  # a straight line, of any length
        free = network(mm.Euclidean(), norm, count=1)
        stepped = mm.SteepestDescent(free, torch.tensor(0.1))
        give_gradients(free, 9)
        stepped.param_groups[0]["lr"].fill_(1e3)
        stepped.step()


def test_a_larger_rate_that_is_loaded_is_allowed_from_then_on() -> None:
    net = network(mm.Stiefel(), mm.Spectral(), count=1)
    saved = mm.SteepestDescent(net, torch.tensor(0.9)).state_dict()
    opt = mm.SteepestDescent(net, torch.tensor(0.1))
    opt.load_state_dict(saved)
    give_gradients(net, 9)
    opt.step()


@dataclass(frozen=True)
class Depth(Plan):
    """A plan that only knows how deep it is."""

    depth: int = 0

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del point, dual
        return Solution(-gradient, torch.zeros(()))

    def deeper(self, gap: float | None = None) -> Plan | None:
        del gap
        return replace(self, depth=self.depth + 1) if self.depth < 2 else None

    def __str__(self) -> str:
        return f"depth {self.depth}"


def bucket() -> Bucket:
    geometry = mm.Geometry(mm.Euclidean(), mm.Frobenius())
    known = Known("weight", torch.nn.Parameter(torch.ones(2, 2)), geometry, 0, 0, 0)
    made = Bucket([known], {"shares": [1.0]}, solver="auto", first_rate=0.1)
    made.plan = Depth(1e-2)
    return made


def test_a_gap_that_was_too_large_deepens_the_plan_and_a_quiet_time_brings_it_back() -> None:
    made = bucket()

    def depth_after(*gaps: float) -> int:
        for gap in gaps:
            made.adapt_plan(gap)
        assert isinstance(made.plan, Depth)
        return made.plan.depth

    assert depth_after(1e-2, 0.0) == 0
    assert depth_after(2e-2) == 1
    assert depth_after(float("nan")) == 2
    assert depth_after(1.0) == 2  # there is none that is deeper
    assert depth_after(*[1e-3] * (QUIET_STEPS - 1)) == 2
    assert depth_after(5e-3) == 2  # within the tolerance, but without room
    assert depth_after(*[1e-3] * (QUIET_STEPS - 1)) == 2
    assert depth_after(1e-3) == 1
    assert depth_after(*[1e-3] * QUIET_STEPS) == 0
    assert depth_after(*[1e-3] * 2 * QUIET_STEPS) == 0


@pytest.mark.usefixtures("without_reading")
def test_the_gap_of_a_step_chooses_the_plan_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "readable", lambda _: False)

    @dataclass(frozen=True)
    class Short(Depth):
        def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
            del point, dual
            gap = 0.1 if self.depth == 0 else 0.0
            return Solution(-gradient, torch.full((2,), gap), tolerance=1e-2)

    monkeypatch.setattr(NormSteepest, "plan", lambda *_: Short(1e-2))
    net = network(mm.Euclidean(), mm.Frobenius())
    opt = mm.SteepestDescent(net, 0.1)
    (made,) = buckets_of(opt)
    depths: list[str] = []
    for seed in range(3):
        give_gradients(net, seed + 9)
        opt.step()
        depths.append(str(made.plan))
    assert depths == ["depth 0", "depth 1", "depth 1"]
    assert "2 × (6, 4), Euclidean × Frobenius: depth 1" in str(made)


def test_shares_that_change_are_followed_without_new_buckets() -> None:
    net = network(mm.Euclidean(), mm.Max())
    opt = mm.SteepestDescent(net, 0.1)
    (made,) = buckets_of(opt)
    give_gradients(net, 9)
    opt.step()
    opt.param_groups[0]["shares"] = [2.0, 3.0]
    before = [p.detach().clone() for p in net.parameters()]
    opt.step()
    assert buckets_of(opt) == [made]
    assert made.shares.flatten().tolist() == [2.0, 3.0]
    for p, start, share in zip(net.parameters(), before, (2.0, 3.0), strict=True):
        torch.testing.assert_close((p.detach() - start).abs().max(), torch.tensor(0.1 * share))

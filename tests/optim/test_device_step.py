"""The step that reads no number, run in the host's memory: it goes where the other one goes, and leaves out what is not finite."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor
from weights import EVERY_PAIR, Weight, give_gradient, named

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError
from modular_manifolds.optim import on_device, settings, steepest_descent
from modular_manifolds.optim.bucket import QUIET_STEPS, Bucket
from modular_manifolds.optim.weight import Weight as Known
from modular_manifolds.solvers import plan
from modular_manifolds.solvers.closed_form import NormSteepest
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution

MU = 0.9


@pytest.fixture
def without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take the way of an accelerator. Solvers and retractions still decide on the host."""
    for module in (steepest_descent, on_device, settings):
        monkeypatch.setattr(module, "readable", lambda _: False)


def network(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...] = (6, 4), count: int = 2
) -> mm.Module:
    first, *others = (Weight(manifold, norm, shape) for _ in range(count))
    return reduce(lambda f, g: f >> g, others, first)


def give_gradients(net: mm.Module, seed: int) -> None:
    """Gradients that leave out a unit now and then, and once a whole weight."""
    generator = torch.Generator().manual_seed(seed)
    for number, p in enumerate(net.parameters()):
        give_gradient(p, generator)
        assert p.grad is not None
        # Not at first: weights in bfloat16 are off their manifolds until they have moved.
        if seed == number + 1:
            p.grad[0] = 0.0
        if seed == number + 3:
            p.grad.zero_()


def snapshot(net: mm.Module, opt: mm.SteepestDescent, *without: str) -> list[Tensor]:
    found = [p.detach().clone() for p in net.parameters()]
    entries = (each for p in net.parameters() for each in sorted(opt.state[p].items()))
    return found + [value.clone() for key, value in entries if key not in without]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum": MU},
    {"momentum": MU, "nesterov": True, "noise_damping": True},
    {"momentum": MU, "tangent_momentum": True},
]


@EVERY_PAIR
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5), (5,)])
def test_both_steps_lead_to_the_same_weights_and_state(
    manifold: type[mm.Manifold],
    norm: type[mm.Norm],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        manifold().check_shape(shape)
    except ShapeError:
        pytest.skip("no such points")
    # A weight that rests leaves a smaller stack, which manifold Muon solves in another way, to its tolerance.
    muon = (manifold, norm) in ((mm.Stiefel, mm.Spectral), (mm.Stiefel, mm.RMSOperator))
    for how in SETTINGS:
        torch.manual_seed(0)
        net = network(manifold(), norm(), shape).to(dtype)
        twin = copy.deepcopy(net)
        opt, other = mm.SteepestDescent(net, 0.1, **how), mm.SteepestDescent(twin, 0.1, **how)
        for seed in range(6):
            give_gradients(net, seed)
            give_gradients(twin, seed)
            opt.step()
            with monkeypatch.context() as without:
                for module in (steepest_descent, on_device, settings):
                    without.setattr(module, "readable", lambda _: False)
                other.step()
        # The dual of a matrix at rest is kept by the one, and solved for anew by the other.
        found = snapshot(net, opt, "dual"), snapshot(twin, other, "dual")
        for ours, theirs in zip(*found, strict=True):
            # A weight in bfloat16 is the rounding of its master.
            close = 1e-2 if muon or ours.dtype is torch.bfloat16 else 1e-5
            torch.testing.assert_close(ours, theirs, atol=close, rtol=close)
        assert set(opt.diagnoses) <= set(other.diagnoses) == set(named(opt))


@pytest.mark.usefixtures("without_reading")
def test_decay_acts_on_what_rests() -> None:
    net = network(mm.Euclidean(), mm.RowRMS())
    opt = mm.SteepestDescent(net, 0.1, momentum=MU, weight_decay=0.5)
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    shares = opt.param_groups[0]["shares"]
    for p, start, share in zip(net.parameters(), before, shares, strict=True):
        torch.testing.assert_close(p.detach(), start * (1 - 0.1 * share * 0.5))


@EVERY_PAIR
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.usefixtures("without_reading")
def test_a_step_that_is_not_finite_changes_no_bit_and_is_told_at_the_next(
    manifold: type[mm.Manifold], norm: type[mm.Norm], bad: float
) -> None:
    how = {"momentum": MU, "tangent_momentum": True, "noise_damping": True}
    net = network(manifold(), norm()).to(torch.bfloat16)
    opt = mm.SteepestDescent(net, 0.1, **how)
    give_gradients(net, 5)
    opt.step()
    before = snapshot(net, opt)
    give_gradients(net, 6)
    last = list(net.parameters())[-1]
    assert last.grad is not None
    last.grad[0, 0] = bad
    opt.step()
    for now, then in zip(snapshot(net, opt), before, strict=True):
        assert torch.equal(now, then)
    give_gradients(net, 7)
    with pytest.raises(NonFiniteError, match=r"the gradient of '1\.weight' .* an earlier step"):
        opt.step()
    for now, then in zip(snapshot(net, opt), before, strict=True):
        assert torch.equal(now, then)
    opt.step()
    assert not torch.equal(snapshot(net, opt)[0], before[0])


@pytest.mark.usefixtures("without_reading")
def test_steps_that_are_left_out_may_be_counted_and_asked_for() -> None:
    net = network(mm.Euclidean(), mm.Frobenius())
    opt = mm.SteepestDescent(net, 0.1, on_nonfinite="skip")
    for seed, bad in enumerate([False, True, True, False]):
        give_gradients(net, seed + 9)
        if bad:
            next(net.parameters()).grad = torch.full((6, 4), torch.nan)
        opt.step()
    assert opt.skipped == 2
    opt.check()
    assert opt.skipped == 2
    strict = mm.SteepestDescent(net, 0.1)
    next(net.parameters()).grad = torch.full((6, 4), torch.nan)
    strict.step()
    with pytest.raises(NonFiniteError, match=r"the gradient of '0\.weight' must be finite"):
        strict.check()
    strict.check()


def test_a_rate_may_be_a_tensor_that_schedules_fill() -> None:
    net = network(mm.Stiefel(), mm.Spectral())
    twin = copy.deepcopy(net)
    rate = torch.tensor(0.1, dtype=torch.float64)
    opt = mm.SteepestDescent(net, rate, momentum=MU)
    other = mm.SteepestDescent(twin, 0.1, momentum=MU)
    schedules = [
        torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.1, total_iters=4) for each in (opt, other)
    ]
    for seed in range(4):
        for each in (net, twin):
            give_gradients(each, seed)
        for stepped, schedule in zip((opt, other), schedules, strict=True):
            stepped.step()
            schedule.step()
    assert opt.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.01)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


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


@pytest.mark.parametrize("bad", [0.6, -0.1, float("nan"), float("inf")])
@pytest.mark.usefixtures("without_reading")
def test_a_tensor_that_is_no_rate_leaves_out_the_step_and_is_told_at_the_next(bad: float) -> None:
    net = network(mm.Stiefel(), mm.Spectral(), count=1)
    opt = mm.SteepestDescent(net, torch.tensor(0.1), momentum=MU)
    give_gradients(net, 9)
    opt.step()
    before = snapshot(net, opt)
    opt.param_groups[0]["lr"].fill_(bad)
    opt.step()
    assert all(map(torch.equal, snapshot(net, opt), before))
    opt.param_groups[0]["lr"].fill_(0.1)
    with pytest.raises(ArgumentError, match=r"lr of 'weight' must be .* in an earlier step"):
        opt.step()
    opt.step()
    assert not torch.equal(snapshot(net, opt)[0], before[0])


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_stays_at_its_address(
    reading: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reading:
        for module in (steepest_descent, on_device, settings):
            monkeypatch.setattr(module, "readable", lambda _: False)
    how = {"momentum": MU, "nesterov": True, "tangent_momentum": True, "noise_damping": True}
    net = network(mm.SpectralSphere(), mm.Spectral()).to(dtype)
    opt = mm.SteepestDescent(net, torch.tensor(0.1), **how)

    def addresses() -> list[int]:
        own = [v.data_ptr() for p in net.parameters() for v in (p, *opt.state[p].values())]
        return [*own, opt.param_groups[0]["lr"].data_ptr()]

    before = addresses()
    give_gradients(net, 9)
    opt.step()
    saved = copy.deepcopy(opt.state_dict())
    kept = snapshot(net, opt)[2:]
    give_gradients(net, 10)
    opt.step()
    opt.param_groups[0]["lr"].fill_(0.05)
    opt.load_state_dict(saved)
    assert addresses() == before
    assert all(map(torch.equal, snapshot(net, opt)[2:], kept))
    assert float(opt.param_groups[0]["lr"]) == pytest.approx(0.1)
    opt.step()
    assert addresses() == before


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
            made.hear_gap(gap)
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
    (made,) = opt._roster.buckets  # pyright: ignore[reportPrivateUsage]
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
    (made,) = opt._roster.buckets  # pyright: ignore[reportPrivateUsage]
    give_gradients(net, 9)
    opt.step()
    opt.param_groups[0]["shares"] = [2.0, 3.0]
    before = [p.detach().clone() for p in net.parameters()]
    opt.step()
    assert opt._roster.buckets == [made]  # pyright: ignore[reportPrivateUsage]
    assert made.shares.flatten().tolist() == [2.0, 3.0]
    for p, start, share in zip(net.parameters(), before, (2.0, 3.0), strict=True):
        torch.testing.assert_close((p.detach() - start).abs().max(), torch.tensor(0.1 * share))

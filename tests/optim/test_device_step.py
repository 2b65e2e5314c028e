"""The step that reads no number goes to the same weights as the other, and leaves out gradients that are not finite."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from reading_nothing import give_gradients, network, snapshot
from weights import EVERY_PAIR_MOSTLY_LONG, named

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError
from modular_manifolds.optim import on_device, settings, whole

MU = 0.9

SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum": MU},
    {"momentum": MU, "nesterov": True, "noise_damping": True},
    {"momentum": MU, "tangent_momentum": True},
]


ROOMS = [
    ((6, 4), torch.float32),
    ((2, 3, 5), torch.float32),
    ((5,), torch.float32),
    ((2, 3, 5), torch.bfloat16),
]
"""Every shape in float32; the master copies of bfloat16 do not depend on the shape."""


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize(("shape", "dtype"), ROOMS)
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
    # A weight that rests leaves a smaller stack, which manifold Muon solves in another way, to its tolerance. The dual of a
    # sphere is searched for by Gram matrices in the one step and by matrix signs in the other, each to its tolerance.
    turns = manifold in (mm.Stiefel, mm.FixedGram) and norm is not mm.Frobenius
    searches = manifold in (mm.Sphere, mm.SpectralSphere) and norm in (mm.Spectral, mm.RMSOperator)
    coarse = turns or searches
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
                for module in (whole, on_device, settings):
                    without.setattr(module, "readable", lambda _: False)
                other.step()
        # The dual of a matrix at rest is kept by the one, and solved for anew by the other.
        found = snapshot(net, opt, "dual"), snapshot(twin, other, "dual")
        for ours, theirs in zip(*found, strict=True):
            # A weight in bfloat16 is the rounding of its master.
            close = 1e-2 if coarse or ours.dtype is torch.bfloat16 else 1e-5
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


@EVERY_PAIR_MOSTLY_LONG
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
        for module in (whole, on_device, settings):
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

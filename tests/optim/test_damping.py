"""Noise damping: a unit steps by the part of its gradients that is signal, and never further than `lr · share`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from weights import EVERY_PAIR_MOSTLY_LONG, Weight, as_one_group_a_weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

LR, MU = 0.01, 0.9


def damped(atom: Weight, *, nesterov: bool = False) -> mm.SteepestDescent:
    return mm.SteepestDescent(atom, lr=LR, momentum=MU, noise_damping=True, nesterov=nesterov)


def moved(atom: Weight, opt: mm.SteepestDescent, gradient: Tensor) -> Tensor:
    before = atom.weight.detach().clone()
    atom.weight.grad = gradient
    opt.step()
    return atom.weight.detach() - before


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 3)])
def test_gradients_that_agree_are_all_signal(
    manifold: type[mm.Manifold], norm: type[mm.Norm], shape: tuple[int, ...]
) -> None:
    atom = Weight(manifold(), norm(), shape)
    plain = copy.deepcopy(atom)
    opts = damped(atom), mm.SteepestDescent(plain, lr=LR, momentum=MU)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        steps = [moved(a, o, gradient.clone()) for a, o in zip((atom, plain), opts, strict=True)]
        # A factor that is 1 but for the rounding of float32's momentum, on steps of size lr.
        torch.testing.assert_close(*steps, atol=1e-5 * LR + 1e-6, rtol=0)


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize("nesterov", [False, True])
def test_no_step_is_longer_than_the_rate(
    manifold: type[mm.Manifold], norm: type[mm.Norm], nesterov: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    atom, measure = Weight(manifold(), norm(), (6, 4)), norm()
    opt = damped(atom, nesterov=nesterov)
    for size in (1e-30, 1.0, 1e30, 1.0, 1.0):
        give_gradient(atom.weight, generator)
        assert atom.weight.grad is not None
        step = moved(atom, opt, size * atom.weight.grad)
        # msign and a step at a boundary add what their docstrings say; the retraction the square of the step's length.
        most = 2.0 if manifold.has_boundary else 1.0 + measure.accuracy
        assert float(measure.value(step)) <= most * LR + atom.weight.numel() * LR**2 + 1e-6
        assert bool(torch.isfinite(atom.weight).all())


def test_noise_is_shortened_to_its_mean_over_a_window() -> None:
    generator = torch.Generator().manual_seed(2)
    atom = Weight(mm.Euclidean(), mm.RowRMS(), (400, 16))
    opt = damped(atom)
    step = torch.zeros(())
    for _ in range(60):
        step = moved(atom, opt, torch.randn(400, 16, generator=generator))
    # Weights (1 − μ) μᵏ of independent gradients: a mean square of (1 − μ)/(1 + μ).
    expected = ((1 - MU) / (1 + MU)) ** 0.5
    assert 0.9 * expected <= float(step.norm(dim=1).mean()) / 4 / LR <= 1.1 * expected


def test_a_row_that_is_seen_again_after_a_long_time_steps_at_full_length() -> None:
    generator = torch.Generator().manual_seed(3)
    atom = Weight(mm.Oblique(), mm.RowRMS(), (3, 8))
    opt = damped(atom)
    for step in range(300):
        gradient = torch.randn(3, 8, generator=generator)
        if 0 < step < 299:
            gradient[2] = 0.0
        length = float(moved(atom, opt, gradient)[2].norm()) / 8**0.5
        assert length == 0.0 if 0 < step < 299 else length >= 0.98 * LR


@pytest.mark.parametrize("shape", [(4, 3), (4,), (2, 3, 4)])
@pytest.mark.parametrize("norm", [mm.Frobenius, mm.Max, mm.RowRMS])
def test_its_state_is_one_number_a_unit_and_resumes_to_the_same_bits(
    norm: type[mm.Norm], shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(4)
    atom = Weight(mm.Euclidean(), norm(), shape)
    opt = damped(atom)
    matrix = shape if len(shape) > 1 else (*shape, 1)
    units = {mm.Frobenius: matrix[:-2], mm.RowRMS: matrix[:-1], mm.Max: matrix}[norm]
    for name in ("power", "seen"):
        assert opt.state[atom.weight][name].numel() == torch.Size(units).numel()
    moved(atom, opt, torch.randn(shape, generator=generator))
    twin = copy.deepcopy(atom)
    resumed = damped(twin)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    gradient = torch.randn(shape, generator=generator)
    assert torch.equal(moved(atom, opt, gradient), moved(twin, resumed, gradient.clone()))
    saved = opt.state_dict()
    saved["state"][0]["power"] = torch.ones(7, 7)
    with pytest.raises(ArgumentError, match="power of shape"):
        resumed.load_state_dict(saved)


def test_it_needs_momentum_and_older_state_dicts_stand_for_none() -> None:
    atom = Weight(mm.Euclidean(), mm.RowRMS(), (3, 2))
    with pytest.raises(ArgumentError, match="noise_damping needs momentum"):
        mm.SteepestDescent(atom, lr=LR, noise_damping=True)
    opt = mm.SteepestDescent(atom, lr=LR, momentum=MU)
    saved = opt.state_dict()
    saved = as_one_group_a_weight(saved)
    del saved["param_groups"][0]["noise_damping"]
    opt.load_state_dict(saved)
    assert opt.param_groups[0]["noise_damping"] is False
    opt.param_groups[0]["noise_damping"] = True
    moved(atom, opt, torch.ones(3, 2))
    assert set(opt.state[atom.weight]) == {"momentum", "power", "seen"}

"""A unit of a weight that gets no gradient rests, whatever its momentum is; one that gets a gradient again moves at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from weights import EVERY_PAIR_MOSTLY_LONG, Weight, give_gradient

import modular_manifolds as mm

SETTINGS = [
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.95, "tangent_momentum": True},
]
LR = 0.05


def step_length(norm: mm.Norm, before: Tensor, after: Tensor) -> float:
    return float(norm.value((after - before).float()).max())


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_without_a_gradient_rests_and_then_moves_at_once(
    manifold: type[mm.Manifold], norm: type[mm.Norm], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    for settings in SETTINGS:
        atom = Weight(manifold(), norm(), (6, 4)).to(dtype)
        opt = mm.SteepestDescent(atom, lr=LR, **settings)
        for _ in range(3):
            give_gradient(atom.weight, generator)
            opt.step()
        rested = atom.weight.detach().clone()
        for _ in range(3):
            atom.weight.grad = torch.zeros_like(atom.weight)
            opt.step()
            assert torch.equal(atom.weight, rested)
        give_gradient(atom.weight, generator)
        opt.step()
        # At the full length, but for what the retraction and bfloat16 take.
        assert step_length(norm(), rested, atom.weight.detach()) >= 0.5 * LR


@EVERY_PAIR_MOSTLY_LONG
def test_a_matrix_of_a_stack_rests_while_the_others_move(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    generator = torch.Generator().manual_seed(1)
    atom = Weight(manifold(), norm(), (3, 6, 4))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.9)
    give_gradient(atom.weight, generator)
    opt.step()
    for _ in range(3):
        before = atom.weight.detach().clone()
        give_gradient(atom.weight, generator)
        assert atom.weight.grad is not None
        atom.weight.grad[1] = 0.0
        opt.step()
        assert torch.equal(atom.weight[1], before[1])
        for moved in (0, 2):
            assert step_length(norm(), before[moved], atom.weight.detach()[moved]) >= 0.5 * LR
    before = atom.weight.detach().clone()
    give_gradient(atom.weight, generator)
    opt.step()
    assert step_length(norm(), before[1], atom.weight.detach()[1]) >= 0.5 * LR


@pytest.mark.parametrize("manifold", [mm.Oblique, mm.BalancedRows, mm.Euclidean])
def test_a_row_that_is_seen_once_steps_once(manifold: type[mm.Manifold]) -> None:
    emb = mm.Embedding(5, 8, manifold=manifold())
    opt = mm.SteepestDescent(emb, lr=LR, momentum=0.9)
    for step in range(20):
        opt.zero_grad()
        before = emb.weight.detach().clone()
        tokens = torch.tensor([3, 0]) if step == 0 else torch.tensor([0, 1])
        (emb(tokens) * torch.randn(2, 8)).sum().backward()
        opt.step()
        moved = (emb.weight.detach() - before).norm(dim=-1) / 8**0.5
        assert float(moved[tokens].min()) >= 0.9 * LR
        others = [row for row in range(5) if row not in tokens.tolist()]
        assert torch.equal(emb.weight[others], before[others])


def test_a_row_of_a_matrix_that_moves_as_a_whole_keeps_its_average() -> None:
    """A row of zeros in the gradient is a part of the average, whether or not another matrix of the stack rests."""
    atom = Weight(mm.Euclidean(), mm.Spectral(), (2, 4, 3))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.5)
    atom.weight.grad = torch.ones(2, 4, 3)
    opt.step()
    atom.weight.grad = torch.ones(2, 4, 3)
    atom.weight.grad[0] = 0.0
    atom.weight.grad[1, 2] = 0.0
    opt.step()
    buffer = opt.state[atom.weight]["momentum"]
    assert torch.equal(buffer[0], torch.full((4, 3), 0.25))
    assert torch.equal(buffer[1], torch.tensor([0.75, 0.75, 0.25, 0.75])[:, None].expand(4, 3))


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize("absent", [slice(1, 2), slice(None)], ids=["one matrix", "whole weight"])
def test_momentum_is_the_average_over_steps_also_of_what_rests(
    manifold: type[mm.Manifold], norm: type[mm.Norm], absent: slice
) -> None:
    generator = torch.Generator().manual_seed(2)
    atom = Weight(manifold(), norm(), (3, 6, 4))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.75)
    average = torch.zeros(3, 6, 4)
    for step in range(5):
        give_gradient(atom.weight, generator)
        assert atom.weight.grad is not None
        if step in (1, 2, 4):
            atom.weight.grad[absent] = 0.0
        average = 0.75 * average + 0.25 * atom.weight.grad
        opt.step()
    # Each of the five steps rounds twice, and entries are below 4.
    error = (opt.state[atom.weight]["momentum"] - average).abs().max()
    assert float(error) <= 10 * 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("manifold", [mm.Oblique, mm.BalancedRows, mm.Euclidean])
def test_a_row_that_is_seen_again_after_a_long_time_follows_its_new_gradient(
    manifold: type[mm.Manifold], nesterov: bool
) -> None:
    landed: list[Tensor] = []
    for first in (1.0, -1.0):
        torch.manual_seed(0)
        emb = mm.Embedding(3, 8, manifold=manifold())
        start = emb.weight.detach().clone()
        opt = mm.SteepestDescent(emb, lr=LR, momentum=0.5, nesterov=nesterov)
        generator = torch.Generator().manual_seed(1)
        for step in range(60):
            give_gradient(emb.weight, generator)
            assert emb.weight.grad is not None
            if step == 0:
                emb.weight.grad[2] = first
            elif step < 59:
                emb.weight.grad[2] = 0.0
            else:
                emb.weight.data[2] = start[2]
            opt.step()
        landed.append(emb.weight.detach()[2])
    # 2^-59 of the first gradient is left, less than a rounding of the last one.
    assert torch.equal(*landed)


@pytest.mark.parametrize("whole", [False, True])
def test_momentum_of_what_rests_becomes_zero(whole: bool) -> None:
    """Denormal numbers would stay for ever, and are slow."""
    atom = Weight(mm.Euclidean(), mm.RowRMS(), (3, 4))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.9)
    atom.weight.grad = torch.tensor([1.0, 1e-36, 1.0])[:, None].expand(3, 4).clone()
    opt.step()
    for _ in range(30):
        atom.weight.grad = torch.zeros(3, 4)
        atom.weight.grad[0] = 0.0 if whole else 1e-43
        opt.step()
    buffer = opt.state[atom.weight]["momentum"]
    assert bool((buffer[1] == 0).all())
    assert bool((buffer[[0, 2]] > 0).all())


def test_a_denormal_gradient_is_a_gradient_though_others_rest() -> None:
    atom = Weight(mm.Euclidean(), mm.Max(), (2, 2))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.5)
    before = atom.weight.detach().clone()
    atom.weight.grad = torch.tensor([[1e-40, 0.0], [0.0, 1.0]])
    opt.step()
    torch.testing.assert_close(before - atom.weight.detach(), LR * torch.eye(2))


@pytest.mark.parametrize("nesterov", [False, True])
def test_an_entry_rests_in_sign_descent(nesterov: bool) -> None:
    atom = Weight(mm.Euclidean(), mm.Max(), (3, 4))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.9, nesterov=nesterov)
    generator = torch.Generator().manual_seed(3)
    give_gradient(atom.weight, generator)
    opt.step()
    before = atom.weight.detach().clone()
    give_gradient(atom.weight, generator)
    assert atom.weight.grad is not None
    atom.weight.grad[1, :3] = 0.0
    opt.step()
    moved = (atom.weight.detach() - before).abs()
    assert torch.equal(moved[1, :3], torch.zeros(3))
    moved[1, :3] = LR
    torch.testing.assert_close(moved, torch.full((3, 4), LR))


def test_entries_that_cancel_in_a_sum_are_a_gradient() -> None:
    for shape in ((2, 2), (2, 2, 2), (4,)):
        atom = Weight(mm.Euclidean(), mm.Frobenius(), shape)
        opt = mm.SteepestDescent(atom, lr=LR, momentum=0.9)
        before = atom.weight.detach().clone()
        signs = torch.tensor([1.0, -1.0]).repeat(atom.weight.numel() // 2)
        atom.weight.grad = signs.reshape(shape)
        opt.step()
        torch.testing.assert_close(step_length(mm.Frobenius(), before, atom.weight.detach()), LR)


def test_rows_that_are_off_their_manifold_land_on_it_though_they_rest() -> None:
    emb = mm.Embedding(6, 4)
    torch.nn.init.normal_(emb.weight)
    opt = mm.SteepestDescent(emb, lr=LR, momentum=0.9)
    emb(torch.tensor([0, 1])).sum().backward()
    opt.step()
    assert float(emb.geometry.manifold.residual(emb.weight.detach())) <= 1e-6


def test_decay_that_was_asked_for_acts_on_what_rests() -> None:
    atom = Weight(mm.Euclidean(), mm.RowRMS(), (3, 4))
    opt = mm.SteepestDescent(atom, lr=LR, momentum=0.9, weight_decay=0.5)
    give_gradient(atom.weight, torch.Generator().manual_seed(4))
    opt.step()
    before = atom.weight.detach().clone()
    atom.weight.grad = torch.zeros(3, 4)
    opt.step()
    torch.testing.assert_close(atom.weight.detach(), before * (1 - LR * 0.5))


def test_large_gradients_of_both_signs_do_not_overflow_the_momentum() -> None:
    atom = Weight(mm.Euclidean(), mm.Frobenius(), (2, 2))
    for nesterov in (False, True):
        opt = mm.SteepestDescent(atom, lr=LR, momentum=0.5, nesterov=nesterov)
        for sign in (1.0, -1.0, 1.0, 1.0):
            atom.weight.grad = torch.full((2, 2), sign * 3e38)
            opt.step()
        assert bool(torch.isfinite(opt.state[atom.weight]["momentum"]).all())
        assert bool(torch.isfinite(atom.weight).all())

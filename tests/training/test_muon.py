"""Muon as it is used in practice, as one optimizer: which weights it takes, and that each steps as torch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm
from modular_manifolds.errors import SpecError
from modular_manifolds.specs.optimizers import MuonSpec
from modular_manifolds.training.bfloat16 import ThroughFloat32, products
from modular_manifolds.training.muon import Muon, MuonWithAdamW
from modular_manifolds.training.optimizers import build_optimizer, build_schedule

SPEC = MuonSpec(name="muon", lr=0.05, momentum=0.9, weight_decay=0.1)


def language_model() -> mm.Module:
    """An embedding, a matrix, a vector and a head."""
    return (
        mm.Embedding(5, 6)
        >> mm.Linear(6, 6, norm=mm.RMSOperator())
        >> mm.Bias(6, vector_norm="rms")
        >> mm.Linear(6, 5, norm=mm.RMSOperator())
    )


def convolutional() -> mm.Module:
    """A stack of two matrices, and a head."""
    return mm.Conv2d(4, 6, 3, size=(3, 3), groups=2) >> mm.Flatten() >> mm.Linear(6, 3)


def inputs(net: mm.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(net.get_submodule("0"), mm.Embedding):
        return torch.randint(5, (8,), generator=generator)
    return torch.randn(8, 36, generator=generator)


def train(net: mm.Module, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> None:
    """Three steps."""
    for _ in range(3):
        optimizer.zero_grad()
        net(inputs(net)).square().mean().backward()
        optimizer.step()
        schedule.step()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_network_of_matrices_is_all_muons() -> None:
    for model in (mm.models.MLP(7, 4), mm.models.ResidualMLP(7, 4, width=6)):
        optimizer = build_optimizer(SPEC, model)
        assert isinstance(optimizer, torch.optim.Muon)
        assert optimizer.param_groups[0]["adjust_lr_fn"] is None


def test_matrices_step_by_muon_and_the_rest_by_adamw() -> None:
    net = language_model()
    copies = [p.detach().clone().requires_grad_() for p in net.parameters()]
    table, hidden, bias, head = copies
    muon = torch.optim.Muon(
        [hidden], lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([table, bias, head], lr=0.05, weight_decay=0.1)
    optimizer = build_optimizer(SPEC, net)
    for _ in range(3):
        optimizer.zero_grad()
        net(inputs(net)).square().mean().backward()
        for p, copy in zip(net.parameters(), copies, strict=True):
            copy.grad = None if p.grad is None else p.grad.clone()
        with products():
            for each in (optimizer, muon, adamw):
                each.step()
        for p, copy in zip(net.parameters(), copies, strict=True):
            assert torch.equal(p, copy)


def test_every_matrix_of_a_stack_steps_as_one_alone() -> None:
    net = convolutional()
    stack = next(net.parameters())
    assert stack.dim() == 3
    alone = [each.detach().clone().requires_grad_() for each in stack]
    muon = torch.optim.Muon(
        alone, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    optimizer = build_optimizer(SPEC, net)
    for _ in range(3):
        optimizer.zero_grad()
        net(inputs(net)).square().mean().backward()
        assert stack.grad is not None
        for each, grad in zip(alone, stack.grad, strict=True):
            each.grad = grad.clone()
        with products():
            optimizer.step()
            muon.step()
        # Muon's products are in bfloat16, and a matrix of a stack lies elsewhere in memory than one alone.
        torch.testing.assert_close(stack, torch.stack(alone), rtol=0, atol=0.05 * 2.0**-7)


@pytest.mark.parametrize("transposed", [False, True])
def test_products_in_bfloat16_are_what_hardware_for_them_computes(transposed: bool) -> None:
    """Added in float32 and rounded once; torch's loops without such hardware may add in another order."""
    a, b = torch.randn(40, 30).bfloat16(), torch.randn(30, 50).bfloat16()
    c = torch.randn(40, 50).bfloat16()
    x = a.T.contiguous().T if transposed else a
    with ThroughFloat32():
        found = [x @ b, torch.addmm(c, x, b, beta=0.5, alpha=-2.0), torch.bmm(x[None], b[None])[0]]
        wide = x.float() @ b.float()
    exact = a.double() @ b.double()
    for mine, true in zip(found, (exact, 0.5 * c - 2.0 * exact, exact), strict=True):
        assert mine.dtype is torch.bfloat16
        # Half a unit in the last place of bfloat16, and what 30 additions in float32 may lose beside it.
        assert bool(((mine - true).abs() <= 2.0**-8 * true.abs() + 1e-5).all())
    assert wide.dtype is torch.float32


def test_muon_steps_as_torchs_own() -> None:
    """But for the order of additions, and what five steps in bfloat16 make of that."""
    weight = torch.randn(24, 16)
    mine, theirs = (weight.clone().requires_grad_() for _ in range(2))
    grad = torch.randn(24, 16)
    for p, kind in ((mine, Muon), (theirs, torch.optim.Muon)):
        p.grad = grad.clone()
        kind([p], lr=1.0, weight_decay=0.0, momentum=0.9).step()
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-2)
    assert float((mine - weight).detach().abs().max()) > 0.3


def test_gradients_are_cleared() -> None:
    net = language_model()
    optimizer = build_optimizer(SPEC, net)
    net(inputs(net)).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("build", [language_model, convolutional])
def test_a_schedule_and_a_saved_state_reach_both(build: Callable[[], mm.Module]) -> None:
    whole, begun = build(), build()
    begun.load_state_dict(whole.state_dict())
    (a, at_a), (b, at_b), (c, at_c) = (
        (optimizer, build_schedule("linear", optimizer, 10))
        for optimizer in (build_optimizer(SPEC, net) for net in (whole, begun, begun))
    )
    train(whole, a, at_a)
    train(whole, a, at_a)
    train(begun, b, at_b)
    c.load_state_dict(b.state_dict())
    at_c.load_state_dict(at_b.state_dict())
    train(begun, c, at_c)
    assert [group["lr"] for group in c.param_groups] == pytest.approx([0.05 * 0.4] * 2)
    for p, q in zip(whole.parameters(), begun.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_closure_is_called_with_gradients() -> None:
    net = language_model()
    optimizer = build_optimizer(SPEC, net)

    def closure() -> float:
        optimizer.zero_grad()
        loss = net(inputs(net)).square().mean()
        loss.backward()
        return float(loss.detach())

    with torch.no_grad():
        assert optimizer.step(closure) > 0


def test_without_a_hidden_matrix_it_is_refused() -> None:
    with pytest.raises(SpecError, match=r"optimizer.name can be muon for a network with a matrix"):
        MuonWithAdamW(
            mm.Embedding(5, 6) >> mm.Linear(6, 5, norm=mm.RMSOperator()),
            lr=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=0.0,
        )

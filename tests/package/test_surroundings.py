"""Steps and the context they enter: the same bits whatever autocast, precision settings and modes say outside."""

from __future__ import annotations

import contextlib

import pytest
import torch
from surroundings import SURROUNDINGS, Surroundings, matmul_precision, products_in
from torch import Tensor
from weights import EVERY_PAIR_MOSTLY_LONG, Weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.backend import product_settings
from modular_manifolds.linalg.surroundings import full_precision


def trained(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...], around: Surroundings
) -> list[Tensor]:
    """Weights and momentum after steps in these surroundings."""
    generator = torch.Generator().manual_seed(0)
    atom = Weight(manifold, norm, shape)
    with torch.no_grad():
        start = torch.randn(shape, generator=generator)
        atom.weight.copy_(manifold.project(start))
    half = Weight(manifold, norm, shape).to(torch.bfloat16)
    half.load_state_dict(atom.state_dict())
    found: list[Tensor] = []
    for each in (atom, half):
        opt = mm.SteepestDescent(each, lr=0.1, momentum=0.9, nesterov=True, tangent_momentum=True)
        for _ in range(3):
            give_gradient(each.weight, generator)
            with around():
                opt.step()
        found += [each.weight.detach(), *opt.state[each.weight].values()]
    return found


@EVERY_PAIR_MOSTLY_LONG
def test_a_step_is_the_same_in_all_surroundings(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    for shape in ((12, 40), (3, 5, 4)):
        expected = trained(manifold(), norm(), shape, contextlib.nullcontext)
        for name, around in SURROUNDINGS.items():
            found = trained(manifold(), norm(), shape, around)
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.dtype is theirs.dtype, name
                assert torch.equal(ours, theirs), name
                assert not ours.is_inference(), name


def test_a_large_step_is_the_same_under_autocast() -> None:
    """Large enough that products go through other code than small ones."""
    expected = trained(mm.Stiefel(), mm.Spectral(), (300, 200), contextlib.nullcontext)
    for name in ("autocast to bfloat16", "products of medium precision", "products in bfloat16"):
        found = trained(mm.Stiefel(), mm.Spectral(), (300, 200), SURROUNDINGS[name])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), name
    assert float(mm.Stiefel().residual(expected[0])) <= 1e-5


def test_a_loop_under_autocast_stays_on_the_manifold() -> None:
    net = mm.Linear(64, 48) >> mm.ReLU() >> mm.Linear(48, 10)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    x, y = torch.randn(128, 64), torch.arange(128) % 10
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            opt.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    assert max(row.residual for row in mm.conditioning(net).rows) <= 1e-5


def test_a_closure_runs_in_the_callers_surroundings() -> None:
    net = mm.Linear(6, 4)
    opt = mm.SteepestDescent(net, lr=0.1)
    seen: list[torch.dtype] = []

    def closure() -> float:
        opt.zero_grad()
        output = net(torch.ones(3, 6))
        seen.append(output.dtype)
        loss = output.float().square().sum()
        loss.backward()
        return loss.item()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        opt.step(closure)
    assert seen == [torch.bfloat16]


def test_the_callers_settings_are_back_afterwards_also_after_an_error() -> None:
    (setting,) = product_settings("cpu")

    def fail_inside() -> None:
        with full_precision("cpu"):
            assert setting.fp32_precision not in ("tf32", "bf16")
            assert not torch.is_autocast_enabled("cpu")
            with full_precision("cpu"):
                assert not torch.is_autocast_enabled("cpu")
            raise ArgumentError("a", "must", "b", "c")

    for precision in ("high", "medium", "highest"):
        with matmul_precision(precision), torch.autocast("cpu", dtype=torch.bfloat16):
            before = setting.fp32_precision
            with pytest.raises(ArgumentError):
                fail_inside()
            assert setting.fp32_precision == before
            assert torch.is_autocast_enabled("cpu")
            assert torch.get_float32_matmul_precision() == precision


def test_an_inherited_precision_stays_inherited() -> None:
    (setting,) = product_settings("cpu")
    before = setting.fp32_precision
    setting.fp32_precision = "none"
    with products_in("bf16"):
        with full_precision("cpu"):
            assert setting.fp32_precision == "ieee"
        assert setting.fp32_precision == "bf16"
    with products_in("tf32"):
        assert setting.fp32_precision == "tf32"
    setting.fp32_precision = before


def test_a_compiler_makes_one_graph_of_the_context() -> None:
    def product(x: Tensor) -> Tensor:
        with full_precision(x.device.type):
            return x @ x

    compiled = torch.compile(product, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled(torch.ones(4, 4)).dtype is torch.float32

"""Everything asks a protocol: a network of plain torch modules is bounded, budgeted and trained as a declared one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.composition.allocation import allocate
from modular_manifolds.composition.budget import Budget
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.signature import Signature
from modular_manifolds.composition.tree import Series, Tree
from modular_manifolds.errors import ArgumentError, SharedWeightError
from modular_manifolds.nn.composed import Composed, Weighted

GEOMETRY = mm.Geometry(mm.Stiefel(), mm.Spectral())


class Plain(nn.Module):
    """Two linear maps of torch with ReLU between, and a tree of leaves that are built by hand: no atom anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)
        )
        for weight in self.parameters():
            weight.data = mm.Stiefel().random(weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def geometries(self, path: str = "") -> Iterator[tuple[str, mm.Geometry]]:
        for name, _ in self.named_parameters():
            yield path + name, GEOMETRY

    def tree(self, path: str = "") -> Tree:
        return Series(path, tuple(leaf_of(i, layer) for i, layer in enumerate(self.layers)))

    def budget(self, lr: float = 1.0) -> Budget:
        return allocate(self.tree(), lr)


def leaf_of(place: int, layer: nn.Module) -> Leaf:
    if not isinstance(layer, nn.Linear):
        signature = Signature(0.0, 1.0, None, mm.SAME)
        return Leaf(
            f"layers.{place}", "ReLU", signature, 1.0, kind="relu", rounding=nothing, forward=layer
        )
    weight = layer.weight
    out, into = weight.shape
    return Leaf(
        f"layers.{place}",
        f"Linear({into}, {out})",
        Signature(1.0, 1.0, mm.Space(into), mm.Space(out)),
        1.0,
        weight=f"layers.{place}.weight",
        manifold="Stiefel",
        norm="Spectral",
        entries=weight.numel(),
        certified=partial(spectral_norm, weight),
        matrix=lambda: weight,
        rounding=partial(products, weight),
        forward=layer,
    )


def nothing(radius: float, dtype: torch.dtype) -> float:
    del radius, dtype
    return 0.0


def spectral_norm(weight: Tensor, radius: float) -> float:
    del radius
    return float(torch.linalg.matrix_norm(weight.detach().double(), 2)) * (1 + 1e-12)


def products(weight: Tensor, radius: float, dtype: torch.dtype) -> float:
    eps = torch.finfo(dtype).eps
    return 2 * weight.shape[1] * eps * float(weight.detach().abs().double().norm()) * radius


def declared_like(plain: Plain) -> mm.Module:
    first, last = plain.parameters()
    net = mm.Linear(6, 5) >> mm.ReLU() >> mm.Linear(5, 3)
    for mine, given in zip(net.parameters(), (first, last), strict=True):
        mine.data = given.detach().clone()
    return net


@pytest.fixture
def plain() -> Plain:
    torch.manual_seed(0)
    return Plain()


def test_a_tree_of_plain_modules_is_certified(plain: Plain) -> None:
    """The certified bound is that of today's weights, leaf by leaf, and as small as a declared network's."""
    with torch.no_grad():
        list(plain.parameters())[1].mul_(3.0)
    report, other = (mm.lipschitz(net, radius=2.0) for net in (plain, declared_like(plain)))
    assert report.certified == pytest.approx(3.0, rel=1e-6)
    assert report.certified == pytest.approx(other.certified, rel=1e-9)
    assert [row.certified for row in report.rows] == pytest.approx(
        [row.certified for row in other.rows], rel=1e-9
    )
    assert report.declared == 1.0
    assert 0.5 * other.empirical < report.empirical <= report.certified
    assert report.rounding is not None
    assert 0 < report.rounding < 1e-4
    assert all(row.empirical is not None for row in report.rows)


def test_activations_of_plain_modules_are_bounded_and_measured(plain: Plain) -> None:
    report, other = (mm.activations(net, radius=2.0) for net in (plain, declared_like(plain)))
    for mine, theirs in zip(report.rows, other.rows, strict=True):
        assert mine.output.certified == pytest.approx(theirs.output.certified, rel=1e-9)
        assert mine.output.measured == pytest.approx(theirs.output.measured, rel=1e-9)
        assert mine.gradient.measured == pytest.approx(theirs.gradient.measured, rel=1e-9)


def test_every_other_report_takes_plain_modules(plain: Plain) -> None:
    net = declared_like(plain)
    x, labels = torch.randn(20, 6), torch.randint(3, (20,))
    assert str(mm.robustness(plain, x, labels)) == str(mm.robustness(net, x, labels))
    near, same = (mm.local_lipschitz(each, x[0], radius=1e-3) for each in (plain, net))
    assert near.bound == pytest.approx(same.bound, rel=1e-9)
    rows, others = mm.conditioning(plain).rows, mm.conditioning(net).rows
    assert [row.largest for row in rows] == [row.largest for row in others]
    assert mm.budget(plain, 0.1).first_order == mm.budget(net, 0.1).first_order


def test_the_laws_take_plain_modules(plain: Plain) -> None:
    mm.testing.check_module(plain)


def test_the_optimiser_takes_plain_modules(plain: Plain) -> None:
    net = declared_like(plain)
    x = torch.randn(8, 6)
    for each in (plain, net):
        each(x).square().sum().backward()
        mm.SteepestDescent(each, lr=0.1).step()
    for mine, theirs in zip(plain.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_library_module_is_both() -> None:
    for net in (mm.Linear(3, 2), mm.ReLU(), mm.Linear(3, 2) >> mm.ReLU(), 2.0 * mm.ReLU()):
        assert isinstance(net, Weighted)
        assert isinstance(net, Composed)


class Weights:
    """Named weights and no module around them."""

    def __init__(self, *weights: nn.Parameter) -> None:
        self.weights = weights

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((str(i), weight) for i, weight in enumerate(self.weights))

    def geometries(self) -> Iterator[tuple[str, mm.Geometry]]:
        return ((name, GEOMETRY) for name, _ in self.named_parameters())

    def budget(self, lr: float = 1.0) -> Budget:
        return (mm.Linear(4, 3) >> mm.Linear(3, 3)).budget(lr)


def weights() -> Weights:
    return Weights(*(nn.Parameter(mm.Stiefel().random(s)) for s in ((3, 4), (3, 3))))


def test_weights_alone_have_a_budget_and_a_condition() -> None:
    held = weights()
    assert mm.budget(held, 0.5).first_order == pytest.approx(1.0)
    assert [row.condition for row in mm.conditioning(held).rows] == pytest.approx([1.0, 1.0])
    twice = Weights(held.weights[0], held.weights[0])
    with pytest.raises(SharedWeightError, match="at both '0' and '1'"):
        mm.budget(twice)


REPORTS: dict[str, Callable[[Any], object]] = {
    "lipschitz": mm.lipschitz,
    "activations": mm.activations,
    "robustness": lambda net: mm.robustness(net, torch.ones(1, 4), torch.zeros(1)),
    "local_lipschitz": lambda net: mm.local_lipschitz(net, torch.ones(4), radius=0.1),
    "check_module": mm.testing.check_module,
}


@pytest.mark.parametrize("report", REPORTS)
def test_bounds_need_the_tree_and_say_so(report: str) -> None:
    """Argument, rule, value seen, remedy."""
    says = rf"^{report}\((net|module)\) needs the tree of the network's composition, .* got Weights, .*mm.budget and"
    with pytest.raises(ArgumentError, match=says):
        REPORTS[report](weights())


def test_bounds_need_a_module_to_copy_and_say_so() -> None:
    class Traced(Weights):
        def tree(self, path: str = "") -> Tree:
            return Leaf(path, "f", Signature(0.0, 1.0, mm.Space(4), mm.Space(4)), 1.0)

        def __call__(self, x: Any) -> Any:
            return x

    with pytest.raises(ArgumentError, match=r"must be a torch.nn.Module, .* got Traced"):
        mm.lipschitz(Traced())


def test_what_is_missing_is_named() -> None:
    class Half(nn.Linear):
        def geometries(self) -> Iterator[tuple[str, mm.Geometry]]:
            yield "weight", GEOMETRY

    half: Any = Half(3, 2)
    for ask in (mm.budget, mm.conditioning, mm.lipschitz):
        with pytest.raises(ArgumentError, match=r"got Half without budget\(\)"):
            ask(half)
    others: list[Any] = [nn.Linear(3, 2), mm.Linear, 3, None]
    for nonsense in others:
        with pytest.raises(ArgumentError, match="must be a modular_manifolds module"):
            mm.budget(nonsense)


def test_a_leaf_without_a_function_is_bounded_and_not_measured() -> None:
    class Opaque(Plain):
        def tree(self, path: str = "") -> Tree:
            leaf = Leaf(path, "f", Signature(1.0, 2.0, mm.Space(6), mm.Space(3)), 2.0, weight="w")
            return leaf

    report = mm.lipschitz(Opaque(), radius=1.0)
    assert (report.declared, report.rows[0].empirical) == (2.0, None)
    assert report.rounding == math.inf
    sizes = mm.activations(Opaque()).rows[0].output
    assert (sizes.declared, sizes.measured) == (2.0, None)

"""Guaranteed sizes of activations and gradients, and measurements that stay below them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError


class Square(mm.Bond):
    """`x²/2`: the slope |x| of an entry is at most ‖x‖ in l2, l1 and linf."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square() / 2


class Shift(mm.Bond):
    """`x + 1` on four entries: ‖f(0)‖₂ = 2."""

    def __init__(self) -> None:
        super().__init__(offset=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Join(mm.Bond):
    """`x + y` of a pair: the norm of a pair is the sum, so the slope is 1."""

    def __init__(self, size: int) -> None:
        space = mm.Space(size)
        super().__init__(source=mm.ProductSpace((space, space)), target=space)

    def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return x[0] + x[1]


def linear(into: int, out: int, norm: mm.VectorNorm, radius: float = 1.0) -> mm.Module:
    return mm.Linear(
        into, out, manifold=mm.Stiefel(radius=radius), source_norm=norm, target_norm=norm
    )


def networks(norm: mm.VectorNorm) -> dict[str, mm.Module]:
    square = linear(6, 6, norm)
    return {
        "mlp": linear(6, 8, norm) >> mm.GELU() >> linear(8, 4, norm, 1.5),
        "residual": mm.Residual(linear(6, 6, norm) >> mm.MaxMin(), depth=3) ** 2
        >> linear(6, 2, norm),
        "sum": (square + -2.0 * mm.Identity()) >> mm.Abs() >> 3.0 * linear(6, 3, norm),
        "merged": linear(6, 5, norm) >> linear(5, 5, norm, 0.5) >> linear(5, 6, norm),
    }


@pytest.mark.parametrize("norm", ["l2", "rms", "l1", "linf"])
@pytest.mark.parametrize("name", networks("l2"))
@pytest.mark.parametrize("radius", [0.1, 5.0])
def test_what_is_measured_stays_below_what_is_guaranteed(
    name: str, norm: mm.VectorNorm, radius: float
) -> None:
    net = networks(norm)[name]
    for report in (
        mm.activations(net, radius=radius),
        mm.activations(net, radius=radius, seed=1),
        mm.activations(net, points=radius * torch.randn(50, 6)),
    ):
        for row in report.rows:
            for size in (row.input, row.output, row.gradient):
                assert size.measured is not None
                assert 0 < size.measured <= size.certified
                # A weight in float32 is on its manifold up to rounding.
                assert size.certified <= size.declared * (1 + 1e-5)


def test_the_sizes_of_a_series_by_hand() -> None:
    net = linear(4, 4, "l2", 2.0) >> Shift() >> 3.0 * linear(4, 4, "l2") >> linear(4, 4, "l2", 0.5)
    rows = mm.activations(net, radius=5.0).rows
    assert [row.input.declared for row in rows] == pytest.approx([5, 10, 12, 36])
    # The scale stands behind its part: the part's own output is not yet scaled.
    assert [row.output.declared for row in rows] == pytest.approx([10, 12, 12, 18])
    assert [row.gradient.declared for row in rows] == pytest.approx([1.5, 1.5, 1.5, 1])
    assert [row.gradient.certified for row in rows] == pytest.approx([1.5, 1.5, 1.5, 1], rel=1e-5)
    # Orthogonal maps keep every length: all that is guaranteed is measured.
    assert rows[0].output.measured == pytest.approx(10)
    assert [row.gradient.measured for row in rows] == pytest.approx([1.5, 1.5, 1.5, 1], rel=1e-5)


def test_gradients_are_those_at_the_modules_output() -> None:
    """The skip of a residual block gets the whole gradient, the branch its part of it."""
    net = linear(4, 4, "l2") >> (mm.Identity() + 0.25 * linear(4, 4, "l2"))
    first, skip, branch = mm.activations(net).rows
    assert skip.gradient.measured == pytest.approx(1)
    assert branch.gradient.measured == pytest.approx(0.25)
    assert branch.gradient.declared == 0.25
    assert first.gradient.declared == 1.25


@pytest.mark.parametrize("norm", ["l2", "rms", "l1", "linf"])
def test_the_gradient_is_measured_in_the_dual_norm(norm: mm.VectorNorm) -> None:
    """Bonds that keep the gradient: a unit gradient at the end is one in front of it."""
    last = mm.activations(linear(6, 6, norm) >> mm.Identity()).rows
    assert last[1].gradient.measured == pytest.approx(1)
    assert last[0].gradient.measured == pytest.approx(1)


def test_linear_parts_are_guaranteed_through_one_matrix() -> None:
    torch.manual_seed(0)
    a, b = (mm.Linear(6, 6, manifold=mm.Sphere(radius=3.0), norm=mm.Frobenius()) for _ in "ab")
    rows = mm.activations(a >> b >> mm.ReLU(), radius=2.0).rows
    product = (b.weight.double() @ a.weight.double()).detach()
    exact = 2 * float(torch.linalg.matrix_norm(product, 2))
    assert rows[2].input.certified == pytest.approx(exact, rel=1e-9)
    # The rule for a series knows no more than the product of the two norms.
    assert rows[2].input.certified < 0.95 * rows[1].output.certified


def test_the_radius_is_that_of_the_points() -> None:
    points = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    report = mm.activations(mm.Linear(2, 2), points=points)
    assert report.radius == 5.0
    assert report.rows[0].input.measured == pytest.approx(5.0)
    assert mm.activations(mm.Linear(2, 2)).radius == 1.0
    assert mm.activations(mm.Linear(2, 2), points=torch.zeros(3, 2)).radius == 1.0
    assert mm.activations(mm.Linear(2, 2), points=points, radius=7.0).radius == 7.0


def test_tuples_are_measured_too() -> None:
    net = linear(6, 6, "l2") >> (mm.ReLU() | 2.0 * mm.Identity()) >> mm.Abs() >> Join(6)
    rows = {row.label: row for row in mm.activations(net, radius=1.0).rows}
    assert rows["Abs"].input.declared == pytest.approx(3.0)
    assert rows["Abs"].input.measured is not None
    assert 2.0 < rows["Abs"].input.measured <= 3.0
    assert rows["Join"].gradient.measured == pytest.approx(1.0)
    assert rows["Abs"].gradient.measured == pytest.approx(1.0)


def test_a_module_without_a_finite_bound_is_named() -> None:
    net = mm.Linear(6, 6, manifold=mm.Euclidean(), norm=mm.Spectral()) >> Square()
    report = mm.activations(net, radius=2.0)
    assert math.isinf(report.rows[0].output.declared)
    assert math.isfinite(report.rows[1].output.certified)
    assert "the weights of 0 are on an unbounded manifold" in str(report)
    assert "no bound is declared at 1 (Square)" in str(report)


def test_bad_arguments_are_refused_in_words() -> None:
    with pytest.raises(ArgumentError, match="points must lie within radius=1 in l2"):
        mm.activations(mm.Linear(3, 3), radius=1.0, points=torch.ones(2, 3))
    with pytest.raises(ArgumentError, match="radius must be finite and positive, got 0"):
        mm.activations(mm.Linear(3, 3), radius=0)
    with pytest.raises(SpaceError, match=r"activations\(net\) must map one space to one space"):
        mm.activations(mm.Linear(3, 3) | mm.Linear(3, 3))
    with pytest.raises(ArgumentError, match="must be a modular_manifolds module"):
        mm.activations(nn.Linear(3, 3))  # pyright: ignore[reportArgumentType]


def test_a_report_does_not_change_the_network() -> None:
    net = mm.Linear(6, 8) >> mm.ReLU() >> mm.Linear(8, 4)
    before = [p.detach().clone() for p in net.parameters()]
    state = torch.random.get_rng_state()
    text = str(mm.activations(net))
    assert text.splitlines()[-2] == "for inputs of norm at most 1 in l2"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))

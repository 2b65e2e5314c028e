"""Each manifold is what its docstring says: points, residuals, retractions, bounds and errors."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError


@pytest.mark.parametrize("radius", [1.0, 0.5, 3.0])
def test_points_look_as_promised(radius: float) -> None:
    tall = mm.Stiefel(radius).random((6, 3), dtype=torch.float64)
    torch.testing.assert_close(tall.mT @ tall, radius**2 * torch.eye(3, dtype=torch.float64))
    wide = mm.Stiefel(radius).random((3, 6), dtype=torch.float64)
    torch.testing.assert_close(wide @ wide.mT, radius**2 * torch.eye(3, dtype=torch.float64))
    rows = mm.Oblique(radius).random((6, 3), dtype=torch.float64)
    torch.testing.assert_close(rows.norm(dim=1), torch.full((6,), radius, dtype=torch.float64))
    whole = mm.Sphere(radius).random((6, 3), dtype=torch.float64)
    assert float(whole.norm()) == pytest.approx(radius)
    balanced = mm.BalancedRows(radius).random((6, 3), dtype=torch.float64)
    torch.testing.assert_close(balanced.norm(dim=1), torch.full((6,), radius, dtype=torch.float64))
    torch.testing.assert_close(balanced.sum(dim=1), torch.zeros(6, dtype=torch.float64))
    top = torch.linalg.svdvals(mm.SpectralSphere(radius).random((6, 3), dtype=torch.float64))
    assert float(top[0]) == pytest.approx(radius)
    assert float(top[1]) < 0.999 * radius
    ball = torch.linalg.svdvals(mm.SpectralBall(radius).random((6, 3), dtype=torch.float64))
    assert float(ball[0]) == pytest.approx(radius) or float(ball[0]) < radius


def test_residuals_are_those_of_the_docstrings() -> None:
    """Relative to the radius; of rows the largest, of a Gram matrix the largest entry off the identity."""
    x = torch.randn(6, 3, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    expected = {
        mm.Sphere(2.0): (x.norm() / 2 - 1).abs(),
        mm.Oblique(2.0): (x.norm(dim=1) / 2 - 1).abs().max(),
        mm.Stiefel(2.0): (x.mT @ x / 4 - eye).abs().max(),
        mm.Euclidean(): torch.zeros((), dtype=torch.float64),
        mm.BalancedRows(2.0): torch.maximum(
            (x.norm(dim=1) / 2 - 1).abs(), x.sum(dim=1).abs() / (2 * math.sqrt(3))
        ).max(),
        mm.SpectralSphere(2.0): (torch.linalg.matrix_norm(x, 2) / 2 - 1).abs(),
        mm.SpectralBall(0.1): torch.linalg.matrix_norm(x, 2) / 0.1 - 1,
        mm.SpectralBall(100.0): torch.zeros((), dtype=torch.float64),
    }
    for manifold, residual in expected.items():
        torch.testing.assert_close(manifold.residual(x), residual)
    torch.testing.assert_close(mm.Stiefel(2.0).residual(x.mT), expected[mm.Stiefel(2.0)])


def test_the_sphere_retracts_by_the_exact_factor() -> None:
    """A tangent step of length η is divided by √(1 + η²)."""
    sphere = mm.Sphere()
    w = sphere.random((6, 3), dtype=torch.float64)
    a = sphere.tangent(w, torch.randn_like(w))
    for eta in (1e-3, 0.5, 10.0):
        step = eta * a / a.norm()
        torch.testing.assert_close(sphere.retract(w, step), (w + step) / math.sqrt(1 + eta**2))


@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (3, 6)], ids=cases.name)
def test_stiefel_retracts_to_the_nearest_point_by_any_way(shape: tuple[int, int]) -> None:
    """The polynomial way and the decomposition agree, on both sides of the switch between them."""
    stiefel = mm.Stiefel(radius=1.3)
    w = stiefel.random(shape, dtype=torch.float64)
    a = stiefel.tangent(w, torch.randn_like(w))
    a = a / torch.linalg.matrix_norm(a, 2)
    for eta in (1e-8, 1e-3, 0.1, 1.0, 3.0, 5.0, 100.0):
        x = w + eta * a
        u, _, vh = torch.linalg.svd(x, full_matrices=False)
        torch.testing.assert_close(stiefel.retract(w, eta * a), 1.3 * u @ vh, atol=1e-12, rtol=0)


@pytest.mark.parametrize("radius", [1.0, 1.7])
@pytest.mark.parametrize("shape", [(64, 128), (200, 150)], ids=cases.name)
def test_stiefel_lands_to_1e_5_in_float32(shape: tuple[int, int], radius: float) -> None:
    """For any step, from points and from what is no point; for many steps one after the other."""
    stiefel = mm.Stiefel(radius)

    def off(w: Tensor) -> float:
        return float(stiefel.residual(w.double()))

    w, g = stiefel.random(shape), torch.randn(shape)
    a = stiefel.tangent(w, g)
    a = radius * a / torch.linalg.matrix_norm(a, 2)
    for eta in (1e-4, 0.1, 1.0, 3.0, 1e3):
        for start, step in ((w, a), (w, 0.1 * g), (torch.zeros_like(w), g), (3 * w, a)):
            assert off(stiefel.retract(start, eta * step)) <= 1e-5
    for _ in range(10):
        w = stiefel.retract(w, 0.03 * stiefel.tangent(w, torch.randn(shape)))
    assert off(w) <= 1e-5


def test_random_points_favour_no_direction() -> None:
    """The mean over many random points vanishes: 5 standard deviations of a mean of 4000."""
    generator = torch.Generator().manual_seed(0)
    for manifold in (m for m in cases.MANIFOLDS if m.compact):
        points = manifold.random((4000, 4, 3), generator=generator, dtype=torch.float64)
        assert float(points.mean(dim=0).abs().max()) <= 5 * float(points.std()) / math.sqrt(4000)


def test_zero_is_projected_to_a_point() -> None:
    for manifold in cases.MANIFOLDS[1:]:
        point = manifold.project(torch.zeros(3, 2))
        assert float(manifold.residual(point)) <= 1e-6
        assert torch.equal(point, manifold.project(torch.zeros(3, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_stiefel_refuses_what_is_not_finite(bad: float) -> None:
    x = torch.randn(4, 3)
    x[1, 1] = bad
    with pytest.raises(
        NonFiniteError, match=r"Stiefel\.project\(x\) must be finite, got NaN or infinity"
    ):
        mm.Stiefel().project(x)


@pytest.mark.parametrize("radius", [0, -1.0, math.nan, math.inf, "1"])
@pytest.mark.parametrize(
    "kind",
    [mm.Sphere, mm.Oblique, mm.BalancedRows, mm.Stiefel, mm.SpectralBall, mm.SpectralSphere],
    ids=cases.name,
)
def test_bad_radii_are_refused(kind: type[mm.Stiefel], radius: float) -> None:
    with pytest.raises(
        ArgumentError, match=rf"{kind.__name__}\(radius\) must be finite and positive, got"
    ):
        kind(radius)


@pytest.mark.parametrize("manifold", cases.MANIFOLDS, ids=cases.name)
def test_bad_tensors_are_refused_in_words(manifold: mm.Manifold) -> None:
    point = manifold.random((4, 3))
    for shape in ((), (0,), (3, 0), (0, 3)):
        with pytest.raises(ShapeError, match="without empty dimensions"):
            manifold.project(torch.zeros(shape))
        with pytest.raises(ShapeError, match="without empty dimensions"):
            manifold.random(shape)
    for method in (manifold.tangent, manifold.retract):
        with pytest.raises(
            ShapeError, match=r"must have the shape of the point, \(4, 3\), got \(3, 4\)"
        ):
            method(point, torch.zeros(3, 4))
    for kind in (torch.int64, torch.complex64, torch.bool):
        with pytest.raises(ArgumentError, match="must be a real floating-point tensor"):
            manifold.project(torch.ones(3, 3, dtype=kind))


@pytest.mark.parametrize("manifold", cases.MANIFOLDS, ids=cases.name)
@pytest.mark.parametrize("by_products", [False, True])
def test_the_unit_normal_is_all_that_a_tangent_lacks(
    manifold: mm.Manifold, by_products: bool
) -> None:
    w = manifold.random((3, 5, 4), dtype=torch.float64)
    if not isinstance(manifold, mm.Sphere | mm.SpectralSphere):
        with pytest.raises(
            ArgumentError, match=r"unit_normal\(point\) needs a manifold with one normal"
        ):
            manifold.unit_normal(w, by_products=by_products)
        return
    n, x = manifold.unit_normal(w, by_products=by_products), torch.randn_like(w)
    along = (n * x).sum(dim=(-2, -1), keepdim=True)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.matrix_norm(n), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(manifold.tangent(w, x), x - along * n, rtol=0, atol=1e-6)
    vector = manifold.random((5,))
    assert manifold.unit_normal(vector, by_products=by_products).shape == (5,)
    assert manifold.unit_normal(vector.bfloat16()).dtype is torch.bfloat16


def test_manifolds_are_values() -> None:
    for manifold in cases.MANIFOLDS:
        assert copy.deepcopy(manifold) == manifold == pickle.loads(pickle.dumps(manifold))
        assert hash(copy.deepcopy(manifold)) == hash(manifold)
    assert len(set(cases.MANIFOLDS)) == len(cases.MANIFOLDS)
    assert str(mm.Stiefel()) == "Stiefel"
    assert str(mm.Stiefel(radius=0.5)) == "Stiefel(radius=0.5)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        mm.Stiefel().radius = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_which_manifolds_are_bounded() -> None:
    assert {type(m) for m in cases.MANIFOLDS if not m.compact} == {mm.Euclidean}
    # Decay pulls into the ball, and shrinks what is not the largest singular value of the sphere.
    decaying = {type(m) for m in cases.MANIFOLDS if not m.fixed_size}
    assert decaying == {mm.Euclidean, mm.SpectralBall, mm.SpectralSphere}

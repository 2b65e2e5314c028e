"""Every manifold obeys the laws; each is what its docstring says; a product works weight by weight."""

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
from modular_manifolds.testing import MANIFOLD_LAWS, ManifoldLaw, Sample, check_manifold


@pytest.mark.parametrize("manifold", cases.MANIFOLDS, ids=cases.name)
@pytest.mark.parametrize("law", MANIFOLD_LAWS, ids=cases.name)
def test_law(law: ManifoldLaw, manifold: mm.Manifold) -> None:
    for shape, dtype in cases.ROOMS:
        if cases.fits(manifold, shape):
            with cases.Trying(shape, dtype):
                law(manifold, Sample(shape, dtype))


@dataclasses.dataclass(frozen=True)
class Broken(mm.Manifold):
    """The unit sphere, with one fault."""

    fault: str = "none"

    def _project(self, x: Tensor) -> Tensor:
        if self.fault == "project writes":
            x.mul_(1.0)
        if self.fault == "projects elsewhere":
            x = x.abs()
        if self.fault == "underflows":
            return x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
        if self.fault == "norm of the stack" and x.dim() > 2:
            return x / torch.linalg.vector_norm(x)
        return mm.Sphere()._project(x)  # pyright: ignore[reportPrivateUsage]

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        if self.fault == "not tangent":
            return vector.clone()
        if self.fault == "tangent too small":
            return torch.zeros_like(vector)
        if self.fault == "oblique projection":
            lean = point + 0.3 * point.roll(1, -2)
            along = (point * vector).sum(dim=(-2, -1), keepdim=True)
            return vector - lean * along / (point * lean).sum(dim=(-2, -1), keepdim=True)
        return mm.Sphere().tangent(point, vector)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        if self.fault == "retracts twice as far":
            step = 2 * step
        if self.fault == "does not return":
            return point + step
        if self.fault == "ordinary square":
            size = 1 + step.square().sum(dim=(-2, -1), keepdim=True)
            return (point + step) / size.sqrt()
        return mm.Sphere().retract(point, step)

    def _residual(self, point: Tensor) -> Tensor:
        if self.fault == "sees nothing":
            return torch.zeros(point.shape[:-2], dtype=point.dtype)
        return mm.Sphere().residual(point)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return 0.9 if self.fault == "bound too small" else 1.0

    def _largest_row_norm(self, shape: tuple[int, int]) -> float:
        return 0.3 if self.fault == "row bound too small" else super()._largest_row_norm(shape)

    def _scaled(self, factor: float) -> mm.Manifold:
        if self.fault == "scales too far":
            return mm.Sphere(2 * factor)
        return super()._scaled(factor)


FAULTS = {
    "projects elsewhere": "nearest",
    "project writes": "written into",
    "underflows": "lands on the manifold",
    "norm of the stack": "one by one",
    "not tangent": "self-adjoint|slope of project",
    "tangent too small": "slope of project",
    "oblique projection": "self-adjoint|slope of project",
    "retracts twice as far": "first-order",
    "does not return": "lands on the manifold",
    "ordinary square": "lands on the manifold|NaN",
    "sees nothing": "residual of a point",
    "bound too small": "largest_singular_value",
    "row bound too small": "largest_row_norm",
    "scales too far": "times a point",
}


def test_a_manifold_without_fault_passes() -> None:
    check_manifold(Broken(), Sample((5, 4)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_laws_find_faults(fault: str) -> None:
    """A law that cannot fail is none: each fault is found, by a law that says what is wrong."""
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_manifold(Broken(fault=fault), Sample((5, 4)))


def test_rows_and_scales_are_told() -> None:
    """Rows on spheres are shorter than the bound on the whole matrix; space without bounds stays itself."""
    assert (
        mm.Oblique(2.0).largest_row_norm((9, 4))
        == 2.0
        < mm.Oblique(2.0).largest_singular_value((9, 4))
    )
    assert mm.BalancedRows(2.0).largest_row_norm((9, 4)) == 2.0
    assert mm.Stiefel(3.0).largest_row_norm((2, 4, 9)) == 3.0
    assert mm.Euclidean().largest_row_norm((9, 4)) == math.inf
    assert mm.SpectralBall(2.0).scaled(3) == mm.SpectralBall(6.0)
    assert mm.Euclidean().scaled(3.0) == mm.Euclidean()
    for factor in (0, -1.0, math.nan, "2"):
        with pytest.raises(ArgumentError, match=r"Sphere.scaled\(factor\)"):
            mm.Sphere().scaled(factor)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="needs a manifold with a radius"):
        Broken().scaled(2.0)


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


PRODUCT = mm.Product({"a": mm.Stiefel(2.0), "b": mm.Sphere(), "c": mm.Euclidean()})
SHAPES = {"a": (5, 3), "b": (4,), "c": (2, 2)}


def test_a_product_works_weight_by_weight() -> None:
    point = PRODUCT.random(SHAPES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vector = {name: torch.randn_like(w) for name, w in point.items()}
    for name, manifold in PRODUCT.manifolds.items():
        w, v = point[name], vector[name]
        assert w.shape == SHAPES[name]
        assert w.dtype == torch.float64
        assert torch.equal(PRODUCT.project(vector)[name], manifold.project(v))
        assert torch.equal(PRODUCT.tangent(point, vector)[name], manifold.tangent(w, v))
        assert torch.equal(PRODUCT.retract(point, vector)[name], manifold.retract(w, v))
        assert torch.equal(PRODUCT.residual(vector)[name], manifold.residual(v))
        assert float(PRODUCT.residual(point)[name]) <= 1e-12
    PRODUCT.check_shape(SHAPES)
    assert str(PRODUCT) == "a: Stiefel(radius=2) × b: Sphere × c: Euclidean"


def test_a_product_does_not_mind_the_order_of_names() -> None:
    point = PRODUCT.random(SHAPES)
    vector = {name: torch.randn_like(w) for name, w in point.items()}
    backwards = dict(reversed(vector.items()))
    for name, found in PRODUCT.tangent(point, backwards).items():
        assert torch.equal(found, PRODUCT.tangent(point, vector)[name])


def test_a_product_names_what_does_not_fit() -> None:
    point = PRODUCT.random(SHAPES)
    missing = {name: w for name, w in point.items() if name != "b"}
    for call in (
        lambda: PRODUCT.project(missing),
        lambda: PRODUCT.tangent(point, missing),
        lambda: PRODUCT.retract(missing, point),
        lambda: PRODUCT.residual({**point, "d": point["a"]}),
    ):
        with pytest.raises(
            ArgumentError, match=r"Product\.\w+\(\w+\) must name exactly a, b, c, got"
        ):
            call()
    with pytest.raises(
        ShapeError, match=r"b must be \(n,\) or .* without empty dimensions for Sphere"
    ):
        PRODUCT.check_shape({**SHAPES, "b": (0,)})

"""Every manifold obeys the laws, and the laws find planted faults."""

from __future__ import annotations

import dataclasses
import math

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.testing import MANIFOLD_LAWS, ManifoldLaw, Sample, check_manifold


def is_usual(case: tuple[mm.Manifold, int]) -> bool:
    manifold, half = case
    return half == 0 and manifold == cases.instances(type(manifold))[0]


@pytest.mark.parametrize(
    ("manifold", "half"),
    mostly_long(
        [(manifold, half) for manifold in cases.MANIFOLDS for half in (0, 1)],
        usual=is_usual,
        several=True,
    ),
    ids=cases.name,
)
@pytest.mark.parametrize("law", MANIFOLD_LAWS, ids=cases.name)
def test_law(law: ManifoldLaw, manifold: mm.Manifold, half: int) -> None:
    """In every second room, from the first one on or from the second one on."""
    rooms = [(shape, dtype) for shape, dtype in cases.ROOMS if cases.fits(manifold, shape)]
    for shape, dtype in rooms[half::2]:
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

"""Orthonormal columns (rows, if the matrix is wide): all singular values equal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    PRODUCTS_MAX_NORM,
    divide_by_largest_entry,
    largest_entry,
    normalise,
    readable,
)
from modular_manifolds.linalg.newton_schulz import inverse_root, nearly_orthogonal_to_orthogonal
from modular_manifolds.linalg.polar_factor import polar_factor, retracted_within
from modular_manifolds.linalg.products import combined, commuting, gram_product, product
from modular_manifolds.linalg.symmetric import eye_like, gram, sym
from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class Stiefel(Manifold):
    """`WᵀW = radius² I` for tall W, `W Wᵀ = radius² I` for wide W.

    Every singular value of a point is `radius`. Tangent at W (tall): `WᵀA + AᵀW = 0`; projection `A − W sym(WᵀA)`
    at radius 1. Retraction: the nearest point to `W + A`, which is `(W + A)(I + AᵀA)^{-1/2}` for tangent A.
    Residual: `max |WᵀW/radius² − I|`, at most 1e-5 in float32 after any retraction.
    Source: Bernstein, "Modular Manifolds" (2025); Absil, Mahony, Sepulchre (2008), section 4.1.
    """

    radius: float = 1.0

    transposes = True

    def _project(self, x: Tensor) -> Tensor:
        tall, wide = _tall(x)
        return _restore_orientation(self.radius * _nearest_orthonormal(tall, "project(x)"), wide)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        w, wide = self.unit_tall(point)
        a, _ = _tall(vector)
        return _restore_orientation(a - w @ sym(w.mT @ a), wide)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        if readable(point):
            # `_retract` reads the step, which tells more than a bound on its length.
            return self._retract(point, step)
        (w, wide), (a, _) = self.tall(point), self.tall(step)
        landed = _restore_orientation(retracted_within(w, a, length / self.radius), wide)
        return landed if self.radius == 1.0 else self.radius * landed

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        if not readable(point):
            x, wide = _tall(divide_by_largest_entry(point / 2 + step / 2))
            landed = _restore_orientation(polar_factor(x), wide)
            return landed if self.radius == 1.0 else self.radius * landed
        moved = point + step if self.radius == 1.0 else (point + step) / self.radius
        x, wide = _tall(moved)
        landed = _polar_by_products(x)
        if landed is None:
            # The nearest orthonormal matrix does not depend on the scale, and half the sum cannot overflow.
            landed = _nearest_orthonormal(_tall(point / 2 + step / 2)[0], "retract(step)")
        landed = _restore_orientation(landed, wide)
        return landed if self.radius == 1.0 else self.radius * landed

    def unit_tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """The point in units of the radius, transposed if it is wide, and whether it is wide.

        A CPU point off the manifold is replaced by the nearest point: otherwise a solver's direction would be too long
        by the same factor as the point. On an accelerator the check would wait, so the point is used as it is.
        """
        w, wide = self.tall(point)
        if readable(point) and not _is_point(w):
            w = _nearest_orthonormal(_tall(point)[0], "point")
        return w, wide

    def tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """The point in units of the radius, transposed if it is wide, and whether it is wide."""
        return _tall(point if self.radius == 1.0 else point / self.radius)

    def _residual(self, point: Tensor) -> Tensor:
        # Squares of huge entries overflow to infinity, which is a right answer; inf − inf would be NaN.
        largest = largest_entry(point).clamp_min(self.radius)
        size = (largest / self.radius).clamp_max(torch.finfo(point.dtype).max)
        w, _ = _tall(point / largest)
        r = gram(w) * size * size
        return (r - eye_like(r)).abs().amax(dim=MATRIX)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


INVERSE_ROOT_MAX_NORM = 16.0
"""The largest `‖I + AᵀA‖₂` for the iteration by matrix products. Longer steps (about four radii) are decomposed."""


def _tall(x: Tensor) -> tuple[Tensor, bool]:
    wide = x.shape[-2] < x.shape[-1]
    return (x.mT if wide else x), wide


def _restore_orientation(x: Tensor, wide: bool) -> Tensor:
    return x.mT if wide else x


def _is_point(w: Tensor) -> bool:
    """Whether the tall W, or every matrix of a stack, is on the unit Stiefel manifold to within `POINT_MAX_DEVIATION`."""
    if w.dim() == 2 and w.is_cpu and w.numel() <= FEW_CALLS_MAX_ENTRIES:
        deviation = w.mT @ w
        deviation.diagonal().sub_(1)
        return torch.linalg.vector_norm(deviation).item() <= POINT_MAX_DEVIATION
    return _is_near_orthonormal(w)


POINT_MAX_DEVIATION = 0.05
"""The largest `‖WᵀW − I‖_F` for which W counts as a point. Points rounded to bfloat16 are below it."""


def _is_near_orthonormal(w: Tensor) -> bool:
    """Whether `‖W‖_F² = n` and `WᵀW 1 = 1` to within `PROBE_MAX_DEVIATION`: three passes over W instead of a product.

    A matrix far from orthonormal passes both tests only by design.
    """
    columns = w.shape[-1]
    probe = w.mT @ w.sum(dim=-1, keepdim=True)
    deviation = torch.linalg.vector_norm(probe - 1, dim=MATRIX) / columns**0.5
    size = torch.linalg.vector_norm(w, dim=MATRIX).square() / columns
    return bool((torch.maximum(deviation, (size - 1).abs()) <= PROBE_MAX_DEVIATION).all())


PROBE_MAX_DEVIATION = 0.01
"""The largest relative error of `‖W‖_F²`, and root mean square entry of `WᵀW 1 − 1`, for W to count as a point."""


def _nearest_orthonormal(x: Tensor, argument: str) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise NonFiniteError(
            f"Stiefel.{argument}",
            "must be finite",
            "NaN or infinity",
            "Look where it came from.",
        )
    u, _, vh = torch.linalg.svd(normalise(x, dim=MATRIX), full_matrices=False)
    return nearly_orthogonal_to_orthogonal(u @ vh)


def _polar_by_products(x: Tensor) -> Tensor | None:
    """`X (XᵀX)^{-1/2}`, the nearest orthonormal matrix to `X = W + A` for tangent A; None if it needs a decomposition.

    If A is a steepest direction of length η, `XᵀX = (1 + η²) I` up to rounding and up to directions in which the
    gradient is zero. A few terms of a series in `XᵀX/mean − I` are then enough, with two products with X in all.
    For other steps the norm of `XᵀX/mean − I` is larger, and an iteration or a decomposition is used.
    """
    r = gram_product(x)
    if x.dim() == 2 and x.is_cpu and x.numel() <= FEW_CALLS_MAX_ENTRIES:
        landed = _polar_in_few_calls(x, r)
        if landed is not None:
            return landed
    mean = r.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    # If the mean is outside this range, the deviation is large.
    mean = mean.clamp(1 / PRODUCTS_MAX_NORM**2, PRODUCTS_MAX_NORM**2)
    deviation = r / mean
    deviation.diagonal(dim1=-2, dim2=-1).sub_(1)
    # An upper bound on the spectral norm, tighter than the largest row sum.
    norm = torch.linalg.vector_norm(deviation, dim=MATRIX).amax().item()
    if norm <= torch.finfo(x.dtype).eps:
        return x * mean.rsqrt()
    if norm <= SERIES_MAX_NORM:
        return product(x, _inverse_root_series(deviation, norm).mul_(mean.rsqrt()))
    largest = r.abs().sum(dim=-1).amax().item()
    q = inverse_root(r, largest=largest) if 1 <= largest <= INVERSE_ROOT_MAX_NORM else None
    # The final cubic step squares the error, so an error of √eps is allowed before it.
    tolerance = 4 * torch.finfo(x.dtype).eps ** 0.5
    if q is None or not bool((q @ r @ q - eye_like(r)).abs().sum(dim=-1).amax() < tolerance):
        return None
    return nearly_orthogonal_to_orthogonal(x @ q)


FEW_CALLS_MAX_ENTRIES = 128 * 128
"""The number of entries up to which the calls for one CPU matrix cost more than its products."""


def _polar_in_few_calls(x: Tensor, r: Tensor) -> Tensor | None:
    """`X (XᵀX)^{-1/2}` with `R = XᵀX` by at most three terms of the series; None if they are not enough."""
    mean = r.trace().item() / r.shape[-1]
    if not 1 / PRODUCTS_MAX_NORM**2 < mean < PRODUCTS_MAX_NORM**2:
        return None
    deviation = r * (1 / mean)
    deviation.diagonal().sub_(1)
    norm = torch.linalg.vector_norm(deviation).item()
    min_term, scale = torch.finfo(x.dtype).eps / 4, mean**-0.5
    if 0.375 * norm**2 <= min_term:
        return combined(x, x, deviation, beta=scale, alpha=-0.5 * scale)
    if 0.3125 * norm**3 <= min_term:
        series = torch.addmm(deviation, deviation, deviation, beta=-0.5, alpha=0.375)
        return combined(x, x, series, beta=scale, alpha=scale)
    return None


SERIES_MAX_NORM = 0.2
"""The largest Frobenius norm of `XᵀX/mean − I` for which the series is used; longer ones need too many terms."""


def _inverse_root_series(deviation: Tensor, norm: float) -> Tensor:
    """`(I + X)^{-1/2} = Σ_k binom(−1/2, k) X^k` for symmetric X of norm at most `norm`, to rounding."""
    min_term = torch.finfo(deviation.dtype).eps / 4
    if 0.375 * norm**2 <= min_term:
        series = -0.5 * deviation
        series.diagonal(dim1=-2, dim2=-1).add_(1)
        return series
    squared = commuting(deviation, deviation)
    # ‖X²‖_F^{1/2} is a tighter bound on the spectral norm.
    norm = min(norm, torch.linalg.vector_norm(squared, dim=MATRIX).amax().item() ** 0.5)
    coefficients, term = [1.0, -0.5, 0.375], 0.375
    while term * norm ** len(coefficients) > min_term:
        term *= (len(coefficients) - 0.5) / len(coefficients)
        coefficients.append(term if len(coefficients) % 2 == 0 else -term)
    # Horner in X², two coefficients at a time.
    if len(coefficients) % 2 == 0:
        coefficients.append(0.0)
    series = coefficients[-1] * squared
    for even, odd in zip(coefficients[-3::-2], coefficients[-2::-2], strict=False):
        series.add_(deviation, alpha=odd)
        series.diagonal(dim1=-2, dim2=-1).add_(even)
        if even != 1.0:
            series = commuting(series, squared)
    return series

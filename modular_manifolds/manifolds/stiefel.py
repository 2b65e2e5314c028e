"""Orthonormal columns (rows, if the matrix is wide): all singular values equal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    MODERATE,
    bring_to_one,
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

    Tangent at W (tall): `WᵀA + AᵀW = 0`; projection `A − W sym(WᵀA)` at radius 1. Retraction: the
    nearest point, `(W + A)(I + AᵀA)^{-1/2}` for tangent A. Residual: `max |WᵀW/radius² − I|`, within
    1e-5 in float32 after a retraction, whatever the point and the step. Every singular value of a point is `radius`.
    Source: Bernstein, "Modular Manifolds" (2025); Absil, Mahony, Sepulchre (2008), section 4.1.
    """

    radius: float = 1.0

    transposes = True

    def _project(self, x: Tensor) -> Tensor:
        tall, wide = _tall(x)
        return _as_given(self.radius * _nearest_orthonormal(tall, "project(x)"), wide)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        w, wide = self.unit_tall(point)
        a, _ = _tall(vector)
        return _as_given(a - w @ sym(w.mT @ a), wide)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        if readable(point):
            # The numbers say more than the length does.
            return self._retract(point, step)
        (w, wide), (a, _) = self.tall(point), self.tall(step)
        landed = _as_given(retracted_within(w, a, length / self.radius), wide)
        return landed if self.radius == 1.0 else self.radius * landed

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        if not readable(point):
            x, wide = _tall(bring_to_one(point / 2 + step / 2))
            landed = _as_given(polar_factor(x), wide)
            return landed if self.radius == 1.0 else self.radius * landed
        moved = point + step if self.radius == 1.0 else (point + step) / self.radius
        x, wide = _tall(moved)
        landed = _polar_near(x)
        if landed is None:
            # Neither the radius nor a factor matters here, and half the sum is always in range.
            landed = _nearest_orthonormal(_tall(point / 2 + step / 2)[0], "retract(step)")
        landed = _as_given(landed, wide)
        return landed if self.radius == 1.0 else self.radius * landed

    def unit_tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """The point in units of the radius, transposed if it is wide, and whether it is.

        A point off its manifold is the caller's mistake. The nearest point takes its place: a solver's direction
        would be as much too long as the point is, and zero at the zero point. An accelerator would have to be waited for:
        there the point is taken as it is.
        """
        w, wide = self.tall(point)
        if readable(point) and not _is_point(w):
            w = _nearest_orthonormal(_tall(point)[0], "point")
        return w, wide

    def tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """The point in units of the radius, transposed if it is wide, and whether it is."""
        return _tall(point if self.radius == 1.0 else point / self.radius)

    def _residual(self, point: Tensor) -> Tensor:
        # Far off the manifold squares are out of range: infinity is right then, a difference of two is not.
        largest = largest_entry(point).clamp_min(self.radius)
        size = (largest / self.radius).clamp_max(torch.finfo(point.dtype).max)
        w, _ = _tall(point / largest)
        r = gram(w) * size * size
        return (r - eye_like(r)).abs().amax(dim=MATRIX)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


FAR = 16.0
"""Above this `‖I + AᵀA‖`, a step of some four radii, the matrix products would be many; decompose."""


def _tall(x: Tensor) -> tuple[Tensor, bool]:
    wide = x.shape[-2] < x.shape[-1]
    return (x.mT if wide else x), wide


def _as_given(x: Tensor, wide: bool) -> Tensor:
    return x.mT if wide else x


def _is_point(w: Tensor) -> bool:
    """Whether the tall W, or every matrix of a stack, is on the unit Stiefel manifold to within `OFF`."""
    if w.dim() == 2 and w.is_cpu and w.numel() <= SMALL:
        off = w.mT @ w
        off.diagonal().sub_(1)
        return torch.linalg.vector_norm(off).item() <= OFF
    return _is_near_orthonormal(w)


OFF = 0.05
"""The `‖WᵀW − I‖_F` up to which W counts as a point. Points that were rounded to bfloat16 are below it."""


def _is_near_orthonormal(w: Tensor) -> bool:
    """Whether `‖W‖_F² = n` and `WᵀW 1 = 1` to within `PROBED`: three passes over W instead of a product.

    Only a matrix made for it passes both and is far from orthonormal.
    """
    columns = w.shape[-1]
    probe = w.mT @ w.sum(dim=-1, keepdim=True)
    off = torch.linalg.vector_norm(probe - 1, dim=MATRIX) / columns**0.5
    size = torch.linalg.vector_norm(w, dim=MATRIX).square() / columns
    return bool((torch.maximum(off, (size - 1).abs()) <= PROBED).all())


PROBED = 0.01
"""As `OFF`, for the root mean square of one vector's error instead of the whole matrix."""


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


def _polar_near(x: Tensor) -> Tensor | None:
    """The nearest orthonormal matrix to `W + A` with A tangent, `X (XᵀX)^{-1/2}`; None if only a decomposition tells.

    For a steepest direction A of length η, `XᵀX = (1 + η²) I` but for rounding and for directions that the
    gradient does not have: then a few terms of the root in `XᵀX` beside its mean are enough, and two
    products with X in all. A step that is not of this kind is noticed by what is left over.
    """
    r = gram_product(x)
    if x.dim() == 2 and x.is_cpu and x.numel() <= SMALL:
        landed = _land_in_few_calls(x, r)
        if landed is not None:
            return landed
    mean = r.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    # A mean out of this range leaves `off` far from zero.
    mean = mean.clamp(1 / MODERATE**2, MODERATE**2)
    off = r / mean
    off.diagonal(dim1=-2, dim2=-1).sub_(1)
    # At least the spectral norm, and nearer to it than the largest sum of a row.
    far = torch.linalg.vector_norm(off, dim=MATRIX).amax().item()
    if far <= torch.finfo(x.dtype).eps:
        return x * mean.rsqrt()
    if far <= FEW:
        return product(x, _root_near_one(off, far).mul_(mean.rsqrt()))
    largest = r.abs().sum(dim=-1).amax().item()
    q = inverse_root(r, largest=largest) if 1 <= largest <= FAR else None
    # The cubic step squares what is left, so the square root of rounding may be left.
    near = 4 * torch.finfo(x.dtype).eps ** 0.5
    if q is None or not bool((q @ r @ q - eye_like(r)).abs().sum(dim=-1).amax() < near):
        return None
    return nearly_orthogonal_to_orthogonal(x @ q)


SMALL = 128 * 128
"""Up to so many entries one matrix in the host's memory costs less by its products than by the calls they take."""


def _land_in_few_calls(x: Tensor, r: Tensor) -> Tensor | None:
    """The same with `R = XᵀX` if three terms of the root are enough; None if they are not."""
    mean = r.trace().item() / r.shape[-1]
    if not 1 / MODERATE**2 < mean < MODERATE**2:
        return None
    off = r * (1 / mean)
    off.diagonal().sub_(1)
    far = torch.linalg.vector_norm(off).item()
    least, scale = torch.finfo(x.dtype).eps / 4, mean**-0.5
    if 0.375 * far**2 <= least:
        return combined(x, x, off, beta=scale, alpha=-0.5 * scale)
    if 0.3125 * far**3 <= least:
        twice = torch.addmm(off, off, off, beta=-0.5, alpha=0.375)
        return combined(x, x, twice, beta=scale, alpha=scale)
    return None


FEW = 0.2
"""Within this of the identity `_root_near_one` takes few terms."""


def _root_near_one(off: Tensor, far: float) -> Tensor:
    """`(I + X)^{-1/2} = Σ_k binom(−1/2, k) X^k` for symmetric X of norm at most `far`, to rounding."""
    least = torch.finfo(off.dtype).eps / 4
    if 0.375 * far**2 <= least:
        total = -0.5 * off
        total.diagonal(dim1=-2, dim2=-1).add_(1)
        return total
    squared = commuting(off, off)
    # ‖X²‖_F^{1/2} is nearer still.
    far = min(far, torch.linalg.vector_norm(squared, dim=MATRIX).amax().item() ** 0.5)
    coefficients, term = [1.0, -0.5, 0.375], 0.375
    while term * far ** len(coefficients) > least:
        term *= (len(coefficients) - 0.5) / len(coefficients)
        coefficients.append(term if len(coefficients) % 2 == 0 else -term)
    # Horner in X², two coefficients at a time.
    if len(coefficients) % 2 == 0:
        coefficients.append(0.0)
    total = coefficients[-1] * squared
    for even, odd in zip(coefficients[-3::-2], coefficients[-2::-2], strict=False):
        total.add_(off, alpha=odd)
        total.diagonal(dim1=-2, dim2=-1).add_(even)
        if even != 1.0:
            total = commuting(total, squared)
    return total

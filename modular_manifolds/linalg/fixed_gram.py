"""Matrices with one Gram matrix: `{R W : R orthogonal}`, seen as `Q B` with Q orthonormal and one factor B."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import (
    MATRIX,
    divide_by_largest_entry,
    largest_entry,
    readable,
)
from modular_manifolds.linalg.polar_factor import inverse_root_terms, polar_factor
from modular_manifolds.linalg.products import gram_product, multiply
from modular_manifolds.linalg.spectrum import decompose
from modular_manifolds.linalg.symmetric import sym


def orthonormal_columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Q and B with `X = QB`: Q has orthonormal columns, and B is upper triangular.

    In the host's memory they come from reflections; elsewhere from two Cholesky factors, without waiting. Columns of Q
    are then shorter than 1 in directions in which X is shorter than about 1e-5 of its norm (float32), never longer.

    Args:
        x: shape (*batch, m, n), m ≥ n, entries of moderate size.
    """
    if readable(x):
        q, b = torch.linalg.qr(x)
        return q, b
    first = _shifted_factor(gram_product(x).double(), _share(x.dtype))
    q = _times_inverse(x, first)
    second = _shifted_factor(gram_product(q).double(), _share(x.dtype))
    return _times_inverse(q, second), (second @ first).to(x.dtype)


def turned(w: Tensor, step: Tensor, c: Tensor) -> Tensor:
    """`P B` for `W = QB`, P the polar factor of `Q + A B⁻¹`: a point close to `W + A` with the Gram matrix of W.

    A short step is added to W. All rounding but that of the sum is then as small as the step, so that the Gram matrix does
    not drift. A long step is decomposed, in float64.

    Args:
        w: shape (*batch, m, n), m ≥ n.
        step: A, shape (*batch, m, n).
        c: `WᵀW` in float64, shape (*batch, n, n).
    """
    largest = float(torch.maximum(w.detach().abs().amax(), step.detach().abs().amax()))
    if 1 / LARGEST_ENTRY < largest < LARGEST_ENTRY:
        moved = _Moved.of(w.double(), step.double(), c, _share_on_host(w.dtype))
        norm = float(torch.linalg.vector_norm(moved.deviation.detach(), dim=MATRIX).amax())
        # A sum of long vectors that is much shorter or longer than W has lost its digits.
        longer = float(moved.excess.detach().abs().amax())
        if max(norm, longer) <= SERIES_MAX_NORM:
            # A power of two, so that few series are ever computed.
            spread = 2.0 ** math.ceil(math.log2(max(norm, 2.0**-60)))
            more = moved.beyond(_inverse_root_less_one(moved.deviation, spread))
            return w + more.to(w.dtype)
    u, sigma, vh, size = decompose(w)
    # The polar factor has no size, so neither a long nor a short step overflows.
    step_size = largest_entry(step).double()
    step_size = torch.where(step_size == 0, 1.0, step_size)
    ratio = size / step_size
    shift = _divided(step.double() / step_size @ vh.mT, sigma, w.dtype)
    p, _, qh, _ = decompose(u * ratio.clamp_max(1.0) + shift / ratio.clamp_min(1.0))
    return (size * ((p @ qh * sigma.unsqueeze(-2)) @ vh)).to(w.dtype)


def turned_within(w: Tensor, step: Tensor, angle: float) -> Tensor:
    """`turned` by matrix products, a number of them known in advance, for `A = ΩW` with `‖Ω‖₂ ≤ angle`."""
    if angle > SERIES_MAX_ANGLE:
        q, b = orthonormal_columns(w)
        shift = _times_inverse(step, _shifted_factor(gram_product(w).double(), _share(w.dtype)))
        return multiply(polar_factor(divide_by_largest_entry(q + shift)), b)
    moved = _Moved.of(w, step, gram_product(w).double(), _share(w.dtype))
    most = 1 + angle**2
    centre = (most + 1 / most) / 2
    deviation = moved.deviation / centre
    deviation.diagonal(dim1=-2, dim2=-1).add_(1 / centre - 1)
    root = _inverse_root_less_one(deviation, (most - 1 / most) / (2 * centre)).div_(centre**0.5)
    root.diagonal(dim1=-2, dim2=-1).add_(centre**-0.5 - 1)
    return w + moved.beyond(root)


LARGEST_ENTRY: Final = 2.0**25
"""The largest entry, and the inverse of the smallest largest entry, for which Gram matrices stay in range."""
SERIES_MAX_NORM: Final = 0.2
"""The largest Frobenius norm of the deviation, and change of the length of W, for which the host takes the series."""
SERIES_MAX_ANGLE: Final = 1.0
"""The largest angle for which an accelerator takes the series."""


class _Moved(NamedTuple):
    """`X = s(W + A)` of the Frobenius norm of W, and how far `XᵀX` is from `C = WᵀW = BᵀB`.

    Args:
        point: W.
        step: A.
        excess: `s − 1`, shape (*batch, 1, 1), in float64.
        factor: B, shape (*batch, n, n), in float64.
        deviation: `B⁻ᵀ(XᵀX − C)B⁻¹`, shape (*batch, n, n), in float64. Zero to rounding for a steepest direction.
    """

    point: Tensor
    step: Tensor
    excess: Tensor
    factor: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, w: Tensor, step: Tensor, c: Tensor, share: float) -> _Moved:
        """Products in the dtype of W; B as in `_shifted_factor`, from C in float64."""
        change = 2 * sym(multiply(w.mT, step).double()) + gram_product(step).double()
        before, more = _trace(c), _trace(change)
        after = (before + more).clamp_min(torch.finfo(c.dtype).tiny)
        # s² − 1 and s − 1, without a difference of numbers close to each other.
        squared_excess = -more / after
        excess = squared_excess / (1 + (before / after).sqrt())
        factor = _shifted_factor(c, share)
        off = squared_excess * c + before / after * change
        half = torch.linalg.solve_triangular(factor.mT, off, upper=False)
        deviation = torch.linalg.solve_triangular(factor, half, upper=True, left=False)
        return cls(w, step, excess, factor, sym(deviation))

    def beyond(self, root: Tensor) -> Tensor:
        """`X B⁻¹ (I + root) B − W`, in the dtype of the products, without a difference of matrices as large as W."""
        turn = torch.linalg.solve_triangular(self.factor, root @ self.factor, upper=True)
        turn = turn * (1 + self.excess)
        turn.diagonal(dim1=-2, dim2=-1).add_(self.excess.squeeze(-1))
        return self.step + multiply(self.point + self.step, turn.to(self.point.dtype))


def _inverse_root_less_one(z: Tensor, spread: float) -> Tensor:
    """`(I + Z)^{-1/2} − I` to rounding, for symmetric Z with `‖Z‖₂ ≤ spread`."""
    terms = inverse_root_terms(spread, torch.finfo(z.dtype).eps / 4)
    q = terms[-1] * z
    for coefficient in terms[-2::-1]:
        q = torch.add(z @ q, z, alpha=coefficient)
    return q


def _shifted_factor(c: Tensor, share: float) -> Tensor:
    """The upper Cholesky factor of `C + δI` with `δ = share · ‖C‖_F`; it exists for C = 0 too."""
    size = torch.linalg.vector_norm(c, dim=MATRIX, keepdim=True)
    shift = (share * size).clamp_min(torch.finfo(torch.float32).tiny)
    c = c.clone()
    c.diagonal(dim1=-2, dim2=-1).add_(shift.squeeze(-1))
    factor, _ = torch.linalg.cholesky_ex(c, upper=True)
    return factor


def _share(dtype: torch.dtype) -> float:
    """The δ of a Gram matrix with the rounding of `dtype`, over ‖C‖_F: its factor exists whatever rounding took from it."""
    return 4 * torch.finfo(dtype).eps


def _share_on_host(dtype: torch.dtype) -> float:
    """The δ of a Gram matrix in float64, over ‖C‖_F, for a step rounded to `dtype`.

    Over B, the rounding of A is then at most a hundredth of A, in directions in which W is hardly there.
    """
    return max(_share(torch.float64), (100 * torch.finfo(dtype).eps) ** 2)


def tangent_part(w: Tensor, v: Tensor) -> Tensor:
    """The nearest A to V of the form `ΩW`: `V − WΛ`, Λ symmetric with `CΛ + ΛC = WᵀV + VᵀW`; nothing where W is zero."""
    u, sigma, vh, _ = decompose(w)
    v = v.double() @ vh.mT
    inside = u.mT @ v
    row, column = sigma.unsqueeze(-1), sigma.unsqueeze(-2)
    present = (sigma > _least(sigma, w.dtype)).to(u.dtype)
    divisor = (row.square() + column.square()).clamp_min(torch.finfo(u.dtype).tiny)
    # In the singular vectors Λ σ: only W Λ is needed, and its entries stay as small as those of V.
    normal = row * (row * inside + column * inside.mT) / divisor
    return ((v - u @ normal) * present.unsqueeze(-2)) @ vh


def tangent_part_by_products(w: Tensor, v: Tensor) -> Tensor:
    """`tangent_part` without a decomposition: the Lyapunov equation by doubling, in float64."""
    c = gram_product(w).double()
    # The second time removes what the rounding of the first left.
    for _ in range(2):
        h = 2 * sym(multiply(w.mT, v).double())
        v = v - multiply(w, _lyapunov(c, h).to(w.dtype))
    return v


def _lyapunov(c: Tensor, h: Tensor) -> Tensor:
    """Λ of `CΛ + ΛC = H` for a positive definite C of any size, if its eigenvalues span a factor of at most 1e10.

    `Λ = 2p Σ_k Uᵏ (C + p)⁻¹ H (C + p)⁻¹ Uᵏ` with `U = (C − p)(C + p)⁻¹`, twice as many terms in each round.
    Source: R. A. Smith, "Matrix equation XA + BX = C" (1968).
    """
    size = torch.linalg.vector_norm(c, dim=MATRIX, keepdim=True).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    shift = SMITH_SHIFT * size
    sum_ = c.clone()
    sum_.diagonal(dim1=-2, dim2=-1).add_(shift.squeeze(-1))
    factor, _ = torch.linalg.cholesky_ex(sum_, upper=True)

    def solve(x: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(factor.mT, x, upper=False)
        return torch.linalg.solve_triangular(factor, half, upper=True)

    u = solve(-2 * shift * torch.eye(c.shape[-1], dtype=c.dtype, device=c.device))
    u.diagonal(dim1=-2, dim2=-1).add_(1)
    total = 2 * shift * solve(solve(h).mT)
    for _ in range(SMITH_ROUNDS):
        total = total + u @ total @ u
        u = sym(u @ u)
    return sym(total)


SMITH_SHIFT: Final = 1e-5
"""p over ‖C‖_F: eigenvalues of C between 1e-10 and 1 of it are treated alike."""
SMITH_ROUNDS: Final = 22
"""The number of doublings, after which no eigenvalue in that range leaves more than rounding."""


def nearest_with_gram_of(w: Tensor, x: Tensor) -> Tensor:
    """The nearest `R W` to X: `P ΣVᵀ` for `W = UΣVᵀ`, P the polar factor of `X V Σ` (Procrustes)."""
    _, sigma, vh, size = decompose(w)
    seen = divide_by_largest_entry(x.double()) @ vh.mT * sigma.unsqueeze(-2)
    p, _, qh, _ = decompose(seen)
    return (size * ((p @ qh * sigma.unsqueeze(-2)) @ vh)).to(x.dtype)


def over_root(x: Tensor, w: Tensor) -> Tensor:
    """`X B⁻¹` for the factor B of W; directions in which W is zero to rounding are left out."""
    _, sigma, vh, size = decompose(w)
    return (_divided(x.double() / size @ vh.mT, sigma, w.dtype) @ vh).to(x.dtype)


def times_root(x: Tensor, w: Tensor) -> Tensor:
    """`X Bᵀ` for the factor B of W: `<X, A> = <X Bᵀ, A B⁻¹>`."""
    _, sigma, vh, size = decompose(w)
    return (x.double() @ vh.mT * sigma.unsqueeze(-2) @ vh * size).to(x.dtype)


def _divided(x: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Columns over the singular values, and zero over those that are rounding."""
    present = sigma > _least(sigma, dtype)
    return x * torch.where(present, 1 / torch.where(present, sigma, 1.0), 0.0).unsqueeze(-2)


def _least(sigma: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.finfo(dtype).eps * sigma[..., :1]


def _times_inverse(x: Tensor, factor: Tensor) -> Tensor:
    """`X B⁻¹` in the dtype of X."""
    return torch.linalg.solve_triangular(factor.to(x.dtype), x, upper=True, left=False)


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(dim=-1).unsqueeze(-1).unsqueeze(-1)

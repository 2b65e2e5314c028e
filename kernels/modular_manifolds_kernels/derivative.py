"""The derivative of the polar factor, by a Sylvester equation in its eigenbasis."""

from __future__ import annotations

import torch
from torch import Tensor


def polar_gradient(x: Tensor, u: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with respect to X, if `gradient` is that with respect to U = msign(X).

    For tall X = U H with `H = UᵀX`, the differential is `dU = U Ω + (I − U Uᵀ) dX H⁻¹` with Ω skew and
    `H Ω + Ω H = Uᵀ dX − dXᵀ U`. This equation is self-adjoint, so with `H Y + Y H = UᵀG − GᵀU` the result is
    `U Y + (G − U UᵀG) H⁻¹`. In the eigenbasis `H = V diag(h) Vᵀ` the equation is solved by a division by
    `h_i + h_j`. The gradient is zero in directions with h = 0.

    Args:
        x: shape (*batch, m, n), any m and n.
        u: the polar factor of x, or close to it.
        gradient: G, same shape.

    Source: Higham, Functions of Matrices (2008), section 8.12, for the derivative of the polar factor.
    """
    if x.shape[-2] < x.shape[-1]:
        return polar_gradient(x.mT, u.mT, gradient.mT).mT
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, u, gradient = x.to(dtype), u.to(dtype), gradient.to(dtype)
    # The derivative of msign at X is 1/s times that at X/s, which neither overflows nor vanishes.
    largest = x.abs().amax(dim=(-2, -1), keepdim=True)
    largest = torch.where(largest == 0, 1.0, largest)
    h = u.mT @ (x / largest)
    h, v = torch.linalg.eigh((h + h.mT) / 2)
    inverse = _or_zero(h, h)
    coefficients = u.mT @ gradient
    skew_part = v.mT @ (coefficients - coefficients.mT) @ v
    sums = h.unsqueeze(-1) + h.unsqueeze(-2)
    y = v @ (skew_part * _or_zero(sums, h)) @ v.mT
    normal_part = (gradient - u @ coefficients) @ (v * inverse.unsqueeze(-2)) @ v.mT
    return (u @ y + normal_part) / largest


def _or_zero(values: Tensor, h: Tensor) -> Tensor:
    """`1 / value` for each value; zero if the value is at the rounding level of the largest `h`."""
    rounding = torch.finfo(h.dtype).eps * h.shape[-1] * h.amax(dim=-1).clamp_min(0)
    nonzero = values > rounding.reshape(*rounding.shape, *(1,) * (values.dim() - rounding.dim()))
    return torch.where(nonzero, 1.0 / torch.where(nonzero, values, 1.0), 0.0)

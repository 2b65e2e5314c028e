"""The derivative of the polar factor, by a Sylvester equation in the basis in which it is diagonal."""

from __future__ import annotations

import torch
from torch import Tensor


def polar_gradient(x: Tensor, u: Tensor, gradient: Tensor) -> Tensor:
    """The gradient for X that belongs to `gradient`, of the result U = msign(X).

    For tall X = U H with `H = UᵀX`, differentiating gives `dU = U Ω + (I − U Uᵀ) dX H⁻¹` with Ω
    skew and `H Ω + Ω H = Uᵀ dX − dXᵀ U`. That equation is its own adjoint, so with
    `H Y + Y H = UᵀG − GᵀU` the answer is `U Y + (G − U UᵀG) H⁻¹`. In the eigenbasis `H = V diag(h) Vᵀ` it is a
    division by `h_i + h_j`. Directions that X does not have (h = 0) get none of the gradient.

    Args:
        x: shape (*batch, m, n), any m and n.
        u: the polar factor of x, or close to it.
        gradient: same shape.

    Source: Higham, Functions of Matrices (2008), section 8.12, for the derivative of the polar factor.
    """
    if x.shape[-2] < x.shape[-1]:
        return polar_gradient(x.mT, u.mT, gradient.mT).mT
    wide = torch.promote_types(x.dtype, torch.float32)
    x, u, gradient = x.to(wide), u.to(wide), gradient.to(wide)
    # The derivative of msign is 1/s times that at X/s, which neither overflows nor vanishes.
    largest = x.abs().amax(dim=(-2, -1), keepdim=True)
    largest = torch.where(largest == 0, 1.0, largest)
    h = u.mT @ (x / largest)
    h, v = torch.linalg.eigh((h + h.mT) / 2)
    inverse = _or_zero(h, h)
    along = u.mT @ gradient
    turned = v.mT @ (along - along.mT) @ v
    sums = h.unsqueeze(-1) + h.unsqueeze(-2)
    y = v @ (turned * _or_zero(sums, h)) @ v.mT
    across = (gradient - u @ along) @ (v * inverse.unsqueeze(-2)) @ v.mT
    return (u @ y + across) / largest


def _or_zero(values: Tensor, h: Tensor) -> Tensor:
    """One over each value, and zero if the value is rounding beside the largest of `h`."""
    least = torch.finfo(h.dtype).eps * h.shape[-1] * h.amax(dim=-1).clamp_min(0)
    kept = values > least.reshape(*least.shape, *(1,) * (values.dim() - least.dim()))
    return torch.where(kept, 1.0 / torch.where(kept, values, 1.0), 0.0)

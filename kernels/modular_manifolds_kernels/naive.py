"""What each kernel computes, in a few lines of torch: the specification its tests compare it with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modular_manifolds_kernels.coefficients import Polynomial


def gram(x: Tensor) -> Tensor:
    """`X Xᵀ`; X of shape (*batch, n, k)."""
    return x @ x.mT


def polynomial(left: Tensor, right: Tensor, a: float, b: float, c: float) -> Tensor:
    """`a I + b A + c A B` for symmetric A, B of shape (*batch, n, n) that commute."""
    eye = torch.eye(left.shape[-1], dtype=left.dtype, device=left.device)
    return a * eye + b * left + c * (left @ right)


def apply(p: Tensor, x: Tensor, a: float, c: float) -> Tensor:
    """`a X + c P X`; P of shape (*batch, n, n), X of shape (*batch, n, k)."""
    return a * x + c * (p @ x)


def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """`X/s` and `s = ‖X Xᵀ‖_F^{1/2}`, by way of `X / max |x|`: safe for 1e-30 and 1e+30; zero gives zeros.

    The largest singular value of `X/s` is at most 1 and at least `n^{-1/4}`. s has shape (*batch,).
    """
    largest = x.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    x = x / largest
    root = gram(x).square().sum(dim=(-2, -1), keepdim=True).sqrt().sqrt()
    return x / torch.where(root == 0, 1.0, root), (largest * root)[..., 0, 0]


def msign(x: Tensor, coefficients: Iterable[Polynomial]) -> Tensor:
    """`U p(Σ) Vᵀ`, the polynomials applied in order to the singular values of `X/s`, s as in `normalise`.

    X of shape (*batch, m, n), any m and n.
    """
    return msign_and_scale(x, coefficients)[0]


def msign_and_scale(x: Tensor, coefficients: Iterable[Polynomial]) -> tuple[Tensor, Tensor]:
    """The same, and s of shape (*batch,)."""
    wide = x.shape[-2] <= x.shape[-1]
    y, scale = normalise(x if wide else x.mT)
    for a, b, c in coefficients:
        r = gram(y)
        y = apply(polynomial(r, r, 0.0, b, c), y, a, 1.0)
    return (y if wide else y.mT), scale


def stiefel_retract(
    w: Tensor, a: Tensor, eta: float | Tensor, corrections: int, *, unit: bool = True
) -> tuple[Tensor, Tensor]:
    """`X = (W + ηA)/√(1+η²)`, then `X ← 1.5 X − 0.5 X XᵀX` as often as asked; and `max |XᵀX − I|`.

    Without `unit`, A is the whole step: `X = (W + A)/√(1+η²)`. W and A of shape (*batch, m, n), with orthonormal
    columns (rows, where wide); η a number or of shape (*batch,), as the residual is.
    """
    wide = w.shape[-2] <= w.shape[-1]
    length = torch.as_tensor(eta, dtype=w.dtype, device=w.device)[..., None, None]
    x = (w + (length * a if unit else a)) / (1 + length.square()).sqrt()
    x = x if wide else x.mT
    for _ in range(corrections):
        x = apply(gram(x), x, 1.5, -0.5)
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    residual = (gram(x) - eye).abs().amax(dim=(-2, -1))
    return (x if wide else x.mT), residual


def pre_step(
    momentum: Tensor, gradient: Tensor, mu: float, *, nesterov: bool
) -> tuple[Tensor, Tensor]:
    """`B ← μB + (1−μ)G`, and what to descend: B, or with Nesterov `μB + (1−μ)G` with the new B."""
    kept = mu * momentum + (1 - mu) * gradient
    return kept, (mu * kept + (1 - mu) * gradient if nesterov else kept)

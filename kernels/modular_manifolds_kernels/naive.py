"""The specification of each kernel in a few lines of torch, for its tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from modular_manifolds_kernels.certificate import Bound
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
    """`X/s` and `s = ‖X Xᵀ‖_F^{1/2}`, computed from `X / max |x|`: safe for entries of 1e-30 and 1e+30; zero gives zero.

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
    """The result of `msign`, and s of shape (*batch,)."""
    wide = x.shape[-2] <= x.shape[-1]
    y, scale = normalise(x if wide else x.mT)
    for a, b, c in coefficients:
        r = gram(y)
        y = apply(polynomial(r, r, 0.0, b, c), y, a, 1.0)
    return (y if wide else y.mT), scale


def stiefel_retract(
    w: Tensor, a: Tensor, eta: float | Tensor, corrections: int, *, unit: bool = True
) -> tuple[Tensor, Tensor]:
    """`X = (W + ηA)/√(1+η²)`, then `X ← 1.5 X − 0.5 X XᵀX` `corrections` times; and `max |XᵀX − I|`.

    Without `unit`, A is the whole step: `X = (W + A)/√(1+η²)`. W and A have shape (*batch, m, n), W with orthonormal
    columns (rows if wide). η is a number or has shape (*batch,), like the residual.
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
    """`B ← μB + (1−μ)G`, and the direction: B, or with Nesterov `μB + (1−μ)G` with the new B."""
    momentum_after = mu * momentum + (1 - mu) * gradient
    return momentum_after, (
        mu * momentum_after + (1 - mu) * gradient if nesterov else momentum_after
    )


def certify_(
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    pair: tuple[Tensor, Tensor] | None,
    scale: Tensor,
    info: Tensor | None,
    bound: Bound,
) -> Tensor:
    """The gap of A as in `Bound`; if `s ≤ least`, A becomes zero and the gap is 0.

    If `info` is not zero, A becomes zero and the gap is 1. NaN stays NaN. Stacks have shape (*batch, …); scale, info
    and gap have shape (*batch,).
    """
    inner_product, square = inner(g, a), inner(omega, omega)
    attained = -inner_product if pair is None else inner(*pair)
    lost = (bound.loss_rate * (bound.max_squares - square)).clamp(0.0, bound.max_loss) * scale
    gap = (
        inner_product * bound.min_mapped_value / (lost + attained)
        + bound.offset
        + bound.rounding / scale
    )
    gap, zero = gap.clamp(0.0, 1.0), scale * 0
    if info is not None:
        a.copy_(torch.where((info != 0)[..., None, None], zero[..., None, None], a))
        gap = torch.where(info != 0, zero + 1, gap)
    no_direction = scale <= bound.min_scale
    a.masked_fill_(no_direction[..., None, None], 0.0)
    return gap.masked_fill(no_direction, 0.0)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """`<X, Y>` of each matrix, shape (*batch,)."""
    return (x * y).sum(dim=(-2, -1))


def descend_(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    *,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """`pre_step` on lists of weights: the directions in one stack of shape (batch, n, k).

    Weights that are `turned` are transposed in the stack. If `ok` is false, gradients count as zero and momenta do not
    change. Without momenta the directions are the gradients. Also returns `max |G|` of each row of the stack, shape
    (batch, n).
    """
    stacked: list[Tensor] = []
    largest: list[Tensor] = []
    for index, (stored, is_turned) in enumerate(zip(gradients, turned, strict=True)):
        gradient = torch.where(ok, stored.to(torch.promote_types(stored.dtype, torch.float32)), 0.0)
        value = gradient
        if momenta:
            momentum, value = pre_step(momenta[index], gradient, mu, nesterov=nesterov)
            momentum = torch.where(ok, momentum, momenta[index])
            value = value if nesterov else momentum
            momenta[index].copy_(momentum)
        shape = (-1, *stored.shape[-2:])
        value, gradient = (x.reshape(shape) for x in (value, gradient))
        stacked.append(value.mT if is_turned else value)
        largest.append(gradient.abs().amax(dim=-2 if is_turned else -1))
    return torch.cat(stacked), torch.cat(largest)


def unit_length(x: Tensor, *, rows: bool) -> Tensor:
    """`X / ‖X‖_F`, or each row divided by its length; zero stays zero. Entries are scaled before squaring."""
    dim = (-1,) if rows else (-2, -1)
    numbers = torch.finfo(x.dtype)
    largest = x.abs().amax(dim=dim, keepdim=True).clamp_min(numbers.tiny)
    size = largest * (x / largest).square().sum(dim=dim, keepdim=True).sqrt()
    return x / size.clamp(numbers.tiny, numbers.max)


def land_(
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    *,
    turned: Sequence[bool],
) -> None:
    """Write a stack (batch, n, k) to the weights and to their master copies, if there are any.

    A row moves to `landed` if its number in `moving`, of shape (batch, n), is true; else it stays at `start`.
    """
    after = torch.where(moving.unsqueeze(-1), landed, start)
    for index, part in enumerate(after.chunk(len(weights))):
        value = (part.mT if turned[index] else part).reshape(weights[index].shape)
        weights[index].copy_(value)
        if masters:
            masters[index].copy_(value)


def gate_(largest: Tensor, counts: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Whether all of `largest` are below `bound`; and, if so, which of them are positive.

    `counts` has one number for each weight, one that does not change, and one for skipped steps. A weight's number grows
    by one if its largest entry is not below the bound; the last number grows by one if any is not.
    """
    finite = largest < bound
    ok, weights = finite.all(), largest.shape[0]
    counts[:weights].add_(torch.logical_not(finite))
    counts[weights + 1].add_(torch.logical_not(ok))
    return ok, (largest > 0) & ok

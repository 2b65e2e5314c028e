"""The public functions for an optimiser's step: checks and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import torch
from torch import Tensor

from modular_manifolds_kernels import step_operators
from modular_manifolds_kernels.certificate import Bound
from modular_manifolds_kernels.descent import stack_shape
from modular_manifolds_kernels.functions import check_matrices


def certify_(
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    scale: Tensor,
    bound: Bound,
    *,
    pair: tuple[Tensor, Tensor] | None = None,
    info: Tensor | None = None,
) -> Tensor:
    """A bound on the gap of a direction A for the gradient G; A becomes zero if G has no tangent part.

    With `lost = s · min(max(share · (squares − ‖Ω‖_F²), 0), each)` the gap is
    `<G, A> · kept / (lost + <L, R>) + whole + rounding/s`, between 0 and 1. If `s ≤ least`, A and the gap become 0.
    If `info` is not zero, A becomes 0 and the gap 1. NaN stays NaN. Not differentiable.

    Args:
        a: shape (*batch, m, n), written to; its batch dimensions must be viewable as one.
        g: same shape.
        omega: shape (*batch, k, k).
        scale: s, float32 of shape (*batch,).
        bound: the numbers of the bound.
        pair: L and R, of one shape (*batch, p, q); without them `−<G, A>` takes the place of `<L, R>`.
        info: int32 of shape (*batch,), the status of a factorisation.

    Returns:
        The gap of shape (*batch,), float32.

    Raises:
        ValueError: an argument breaks its rule.
    """
    batch = a.shape[:-2]
    if g.shape != a.shape or omega.shape[:-2] != batch or omega.shape[-1] != omega.shape[-2]:
        seen = f"{tuple(a.shape)}, {tuple(g.shape)} and {tuple(omega.shape)}"
        raise ValueError(
            f"a and g must have one shape and omega be as many square matrices, got {seen}. Reshape them."
        )
    if pair is not None and pair[0].shape != pair[1].shape:
        seen = f"{tuple(pair[0].shape)} and {tuple(pair[1].shape)}"
        raise ValueError(f"pair must be two stacks of one shape, got {seen}. Reshape them.")
    if scale.shape != batch or (info is not None and info.shape != batch):
        raise ValueError(
            f"scale and info must have shape {tuple(batch)}, got {tuple(scale.shape)}"
            f" and {None if info is None else tuple(info.shape)}. Pass one number a matrix."
        )
    left, right = (None, None) if pair is None else pair
    numbers = [float(each) for each in astuple(bound)]
    return step_operators.certify_(a, g, omega, scale, numbers, left, right, info)


def descend_(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    ok: Tensor,
    *,
    mu: float = 0.0,
    nesterov: bool = False,
    turned: Sequence[bool] | None = None,
) -> tuple[Tensor, Tensor]:
    """Update momenta in place and return the directions in one stack, in one pass over memory.

    `B ← μB + (1−μ)G` for every weight. The direction is B, or with Nesterov `μB + (1−μ)G` with the new B, or G
    without momenta. If `ok` is false, no momentum changes, and gradients count as zero whatever they hold.

    Args:
        gradients: at least one, of shape (*batch, m, n), or (*batch, n, m) if turned.
        momenta: as many and of the same shapes, float32 and contiguous, written to; or none.
        ok: one bool on the device of the gradients. Nothing is read on the host.
        mu: in [0, 1).
        nesterov: whether the direction is Nesterov's look-ahead.
        turned: for each weight whether its matrices are transposed in the stack; None for no weight.

    Returns:
        The directions, in at least float32, of shape (weights · batch, m, n); and the largest entry of every row of the
        gradients in the stack, of shape (weights · batch, m).

    Raises:
        ValueError: an argument breaks its rule.
    """
    turned = [False] * len(gradients) if turned is None else list(turned)
    if not gradients or len(turned) != len(gradients) or len(momenta) not in (0, len(gradients)):
        counts = f"{len(gradients)} gradients, {len(momenta)} momenta and {len(turned)} of turned"
        raise ValueError(f"there must be one of each for every weight, got {counts}. Pass as many.")
    for gradient, momentum in zip(gradients, momenta, strict=False):
        if momentum.shape != gradient.shape or not momentum.is_contiguous():
            raise ValueError(
                f"momenta must be contiguous and have the shapes of the gradients, got {tuple(momentum.shape)} with"
                f" strides {momentum.stride()} for {tuple(gradient.shape)}. Copy them."
            )
    if not 0 <= mu < 1:
        raise ValueError(f"mu must lie in [0, 1), got {mu}. Pass 0.95.")
    if ok.dtype != torch.bool or ok.numel() != 1:
        raise ValueError(
            f"ok must be one bool, got {ok.numel()} of {ok.dtype}. Pass torch.tensor(True) on the gradients' device."
        )
    return step_operators.descend_(
        list(momenta), list(gradients), ok, float(mu), nesterov and len(momenta) > 0, turned
    )


def unit_length(x: Tensor, *, rows: bool = False) -> Tensor:
    """Divide each matrix by its Frobenius norm, or each row by its own length; zero stays zero.

    Entries of 1e-30 and of 1e+30 are treated alike. Lengths beyond the normal numbers are clamped to them. Not
    differentiable.

    Args:
        x: shape (*batch, m, n).
        rows: whether each row is divided by its own length.

    Raises:
        ValueError: x is not a stack of matrices of floating-point numbers.
    """
    check_matrices(x, "unit_length(x)")
    if x.numel() == 0:
        return x.clone()
    return step_operators.unit_length(x.reshape(-1, *x.shape[-2:]), rows).reshape(x.shape)


def land_(
    weights: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    *,
    masters: Sequence[Tensor] = (),
    turned: Sequence[bool] | None = None,
) -> None:
    """Write a stack back to a list of weights and to their master copies, in one pass over memory.

    Args:
        weights: at least one, of shape (*batch, m, n), or (*batch, n, m) if turned; contiguous, written to.
        landed: shape (weights · batch, m, n): the new values of the rows that move.
        start: same shape: the values of all other rows.
        moving: bool, which expands to (weights · batch, m, 1): whether a row moves.
        masters: as many and of the same shapes, in float32, contiguous, written to; or none.
        turned: for each weight whether its matrices are transposed in the stack; None for no weight.

    Raises:
        ValueError: an argument breaks its rule.
    """
    turned = [False] * len(weights) if turned is None else list(turned)
    if not weights or len(turned) != len(weights) or len(masters) not in (0, len(weights)):
        counts = f"{len(weights)} weights, {len(masters)} masters and {len(turned)} of turned"
        raise ValueError(f"there must be one of each for every weight, got {counts}. Pass as many.")
    shape = stack_shape(weights, turned)
    if landed.shape != shape or start.shape != shape:
        seen = f"{tuple(landed.shape)} and {tuple(start.shape)}"
        raise ValueError(
            f"landed and start must have shape {shape}, got {seen}. Stack the weights."
        )
    if not all(each.is_contiguous() for each in (*weights, *masters)):
        raise ValueError("weights and masters must be contiguous, got one that is not. Copy it.")
    try:
        moves = moving.expand(*shape[:2], 1).squeeze(-1)
    except RuntimeError:
        seen = f"got {tuple(moving.shape)}"
        raise ValueError(
            f"moving must expand to {(*shape[:2], 1)}, {seen}. Pass one bool a row."
        ) from None
    step_operators.land_(list(weights), list(masters), landed, start, moves, turned)


def gate_(largest: Tensor, counts: Tensor, *, bound: float) -> tuple[Tensor, Tensor]:
    """Decide in one launch whether a step is taken, and count skipped steps.

    Args:
        largest: the largest entry of each gradient, float32 of shape (weights,).
        counts: float32 of shape (weights + 2,), contiguous, written to. The number of a weight grows by one if its
            largest entry is not below `bound`; the last number grows by one if there is such a weight. The last number
            but one does not change.
        bound: entries of at least this size count as infinite.

    Returns:
        Whether the step is taken, one bool; and for each weight whether it is taken and its gradient is not zero.

    Raises:
        ValueError: counts are too few.
    """
    if counts.shape != (largest.shape[0] + 2,):
        raise ValueError(
            f"counts must have shape {(largest.shape[0] + 2,)}, got {tuple(counts.shape)}."
            " Pass one number for each weight and two more."
        )
    return step_operators.gate_(largest, counts, bound)

"""A bound on the gap of a direction by kernels: one launch for the inner products, one for the bound."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import choose


@dataclass(frozen=True)
class Bound:
    """The constants of the bound `gap = <G, A> · min_mapped_value / (lost + attained) + offset + rounding/s`.

    Here `lost = s · min(max(loss_rate · (max_squares − ‖Ω‖_F²), 0), max_loss)`. `attained` is `<L, R>` for a pair (L, R),
    otherwise `−<G, A>`. If `s ≤ min_scale`, the gradient has no tangent part, and direction and gap are zero. The kernels take
    the constants in this order.
    """

    loss_rate: float
    max_squares: float
    max_loss: float
    min_mapped_value: float
    offset: float
    rounding: float
    min_scale: float


def certify_(
    machine: Machine,
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    pair: tuple[Tensor, Tensor] | None,
    scale: Tensor,
    info: Tensor | None,
    bound: Bound,
) -> Tensor:
    """`naive.certify_` by kernels: the gap, shape (batch,), for stacks of shape (batch, …) with any strides."""
    batch, n, k = a.shape
    side, has_pair = omega.shape[-1], pair is not None
    # Without a pair the pointers are not read.
    left, right = (a, a) if pair is None else pair
    pair_rows, pair_columns = left.shape[1:]
    row = choose("overlaps", "fp32", machine.target, SPLIT=has_pair)
    certify_row = choose(
        "certify", "fp32", machine.target, SPLIT=has_pair, FACTORED=info is not None
    )
    assert row is not None
    assert certify_row is not None
    block, block_k = int(row.constexprs["BLOCK"]), int(row.constexprs["BLOCK_K"])
    shapes = [(n, k), (side, side), (pair_rows, pair_columns)]
    parts = max(-(-m // block) * -(-c // block_k) for m, c in shapes)
    sums = torch.empty(batch, 3, parts, dtype=torch.float32, device=a.device)
    strides = [stride for x in (a, g, omega, left, right) for stride in x.stride()]
    sizes = (n, k, side, pair_rows, pair_columns, parts)
    machine.launch(row, (batch * parts,), a, g, omega, left, right, sums, *sizes, *strides)
    gap = torch.empty(batch, dtype=torch.float32, device=a.device)
    tiles = -(-n // int(certify_row.constexprs["BLOCK"])) * -(
        -k // int(certify_row.constexprs["BLOCK_K"])
    )
    results = (a, sums, scale, scale if info is None else info, gap)
    machine.launch(
        certify_row, (batch * tiles,), *results, *astuple(bound), n, k, parts, *a.stride()
    )
    return gap

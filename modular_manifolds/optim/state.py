"""The state of one weight, made at construction: momentum, master copy, dual variable and averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.weight import PieceState, Weight, full_dtype


def prepare_(
    state: dict[str, Any],
    weight: Weight,
    *,
    momentum: float,
    damped: bool,
    dual_shape: tuple[int, ...] | None,
) -> None:
    """Make missing entries, and convert the others if the weight has moved to another dtype or device.

    `momentum`, `dual` and the averages start at zero, `master` at the weight. A zero dual means that no solve has set it.
    An entry with the right dtype and device is not touched: captured graphs hold its address.
    """
    parameter = weight.parameter
    dtype = full_dtype(parameter)
    dtypes: dict[str, torch.dtype] = {}
    entries = weight.entries(state)
    if momentum > 0 or "momentum" in entries:
        dtypes["momentum"] = dtype
    if dtype is not parameter.dtype:
        dtypes["master"] = dtype
    if dual_shape is not None:
        dtypes["dual"] = dtype
    if damped or AVERAGES[0] in entries:
        dtypes.update(dict.fromkeys(AVERAGES, torch.float64))
    for name in ("master", "dual"):
        if name in entries and name not in dtypes:
            del state[weight.key(name)]
    for name, kind in dtypes.items():
        key = weight.key(name)
        entry = state.get(key)
        if entry is None:
            state[key] = _new_entry(name, weight, kind, dual_shape)
        elif entry.dtype is not kind or entry.device != parameter.device:
            state[key] = entry.to(parameter.device, kind)


def _new_entry(
    name: str, weight: Weight, dtype: torch.dtype, dual_shape: tuple[int, ...] | None
) -> Tensor:
    parameter = weight.parameter
    # A whole parameter keeps its memory layout, for speed. Pieces must be views.
    layout = torch.preserve_format if weight.piece is None else torch.contiguous_format
    if name == "master":
        return parameter.detach().to(dtype, memory_format=layout)
    if name == "momentum":
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False, memory_format=layout)
    if name == "dual":
        assert dual_shape is not None
        return parameter.new_zeros(dual_shape, dtype=dtype)
    return parameter.new_zeros(unit_shape(weight.shape, weight.geometry.coupled_dims), dtype=dtype)


def has_dual(state: dict[str, Any] | PieceState) -> bool:
    """Whether an earlier solve has set the dual variable."""
    return "dual" in state and bool(state["dual"].any())


def full_precision_weight(weight: Tensor, master: Tensor | None) -> Tensor:
    """The weight in at least float32: its master copy, except entries that were changed outside the optimiser."""
    full = at_least_float32(weight.detach())
    return full if master is None else torch.where(master.to(weight.dtype) == weight, master, full)


def keep_unreached_units(point: Tensor, landed: Tensor, reached: Tensor) -> Tensor:
    """`landed`, except that an unreached unit keeps its old value, bit for bit, if only rounding has changed it.

    An unreached unit that was off its manifold has moved more than rounding, and takes the value of `landed`.
    """
    unit_dims = tuple(d for d in range(reached.dim()) if reached.shape[d] == 1)
    moved, size = (landed - point).abs(), landed.abs()
    if unit_dims:
        moved = moved.amax(dim=unit_dims, keepdim=True)
        size = size.amax(dim=unit_dims, keepdim=True)
    only_rounding = moved <= RETRACTION_MAX_ROUNDING_EPS * torch.finfo(landed.dtype).eps * size
    return torch.where(only_rounding & ~reached, point, landed)


RETRACTION_MAX_ROUNDING_EPS = 64
"""The largest change, in eps times the largest entry, that a retraction of a zero step makes by rounding."""

"""The compile-time configuration of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Precision = Literal["bf16", "fp32"]
TARGETS: Final = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Configuration:
    """One shipped configuration of one kernel.

    Args:
        kernel: key of `KERNELS`.
        dtype: precision of the operands of the matrix products, `"bf16"` or `"fp32"`.
        target: architecture, one of `TARGETS`.
        constexprs: compile-time arguments, including block sizes.
        warps: Triton's `num_warps` and `num_stages`.
        stages: as `warps`.
        layout: `"rows"` if the long side is contiguous, `"columns"` if the short side is.
    """

    kernel: str
    dtype: str
    target: str
    constexprs: Mapping[str, int | str | bool]
    warps: int
    stages: int
    layout: str = "rows"


TENSORS_PER_LAUNCH: Final = 48
"""The length of a kernel's list of tensors."""

_WITHOUT_PRODUCTS: Final = (
    "move",
    "pre_step",
    "overlaps",
    "certify",
    "descend",
    "unit_length",
    "unit_rows",
    "gate",
    "land",
)
_FLOAT32_ONLY: Final = ("stiefel_retract", "tiled_msign", "tiled_retract", *_WITHOUT_PRODUCTS)
"""Kernels that are not compiled for operands in half precision."""


def row(
    kernel: str,
    dtype: Precision,
    target: str,
    block: int,
    block_k: int,
    *,
    warps: int,
    stages: int,
    layout: str = "rows",
    products: str = "tf32x3",
    **flags: bool | int,
) -> Configuration:
    """A row of the table."""
    constexprs: dict[str, int | str | bool] = dict(flags)
    if kernel not in _FLOAT32_ONLY:
        constexprs["HALF"] = dtype == "bf16"
    if kernel not in _WITHOUT_PRODUCTS:
        constexprs["PRECISION"] = "ieee" if target == "gfx942" or dtype == "bf16" else products
    constexprs |= {"BLOCK": block, "BLOCK_K": block_k}
    return Configuration(kernel, dtype, target, constexprs, warps, stages, layout)

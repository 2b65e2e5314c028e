"""The committed table: every way in which a kernel is compiled, and so every way in which it runs."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Precision = Literal["bf16", "fp32"]
TARGETS: Final = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Configuration:
    """One shipped way to compile one kernel.

    Args:
        kernel: key of `KERNELS`.
        dtype: precision of the operands of the matrix products, `"bf16"` or `"fp32"`.
        target: architecture, one of `TARGETS`.
        constexprs: compile-time arguments, block sizes among them.
        warps, stages: as Triton counts them.
        signature: type of every argument, in order.
        divisible: arguments known to be multiples of 16.
        layout: `"rows"` where the long side is contiguous, `"columns"` where the short side is.
    """

    kernel: str
    dtype: str
    target: str
    constexprs: Mapping[str, int | str | bool]
    warps: int
    stages: int
    signature: Mapping[str, str]
    divisible: tuple[str, ...]
    layout: str = "rows"


class _Programs(Mapping[str, Any]):
    """The Triton functions by name, imported when first asked for: Triton may be missing."""

    names = (
        "gram",
        "polynomial",
        "apply",
        "small_msign",
        "narrow_msign",
        "stiefel_retract",
        "pre_step",
    )

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        module = importlib.import_module(f"modular_manifolds_kernels.programs.{name}")
        return getattr(module, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


KERNELS: Final[Mapping[str, Any]] = _Programs()

# Pointers that hold matrices in the precision of the products, those that always hold float32, scalars.
_MATRICES: Final[Mapping[str, tuple[str, ...]]] = {
    "gram": ("x", "r"),
    "polynomial": ("left", "right", "out"),
    "apply": ("p", "x", "out"),
    "small_msign": ("x", "out"),
    "narrow_msign": ("x", "out", "held"),
    "stiefel_retract": ("w", "a", "out"),
    "pre_step": ("momentum", "gradient", "out"),
}
_FLOATS: Final = ("largest", "squares", "coefficients", "residual")
_SCALARS: Final = ("a", "b", "c", "eta", "mu")
_ARGUMENTS: Final[Mapping[str, str]] = {
    "gram": "x r largest squares n k x_batch x_row x_column r_batch r_row parts",
    "polynomial": "left right out squares a b c n parts left_batch left_row right_batch right_row"
    " out_batch out_row",
    "apply": "p x out largest squares a c n k parts tiles p_batch p_row x_batch x_row x_column"
    " out_batch out_row out_column",
    "small_msign": "x out coefficients n k steps x_batch x_row x_column out_batch out_row out_column",
    "narrow_msign": "x out held coefficients n k steps x_batch x_row x_column"
    " out_batch out_row out_column",
    "stiefel_retract": "w a out residual eta n k corrections w_batch w_row w_column"
    " a_batch a_row a_column out_batch out_row out_column",
    "pre_step": "momentum gradient out largest squares mu n k"
    " momentum_batch momentum_row momentum_column gradient_batch gradient_row gradient_column"
    " out_batch out_row out_column",
}
_LOOSE: Final = ("parts", "tiles", "steps", "corrections")


def _row(
    kernel: str,
    dtype: Precision,
    target: str,
    *,
    block: int,
    block_k: int,
    warps: int,
    stages: int,
    layout: str = "rows",
    products: str = "tf32x3",
    **flags: bool | int,
) -> Configuration:
    """A row of the table, with the signature that its kernel and layout give."""
    constexprs: dict[str, int | str | bool] = dict(flags)
    if kernel not in ("pre_step", "stiefel_retract"):
        constexprs["HALF"] = dtype == "bf16"
    if kernel != "pre_step":
        constexprs["PRECISION"] = "ieee" if target == "gfx942" or dtype == "bf16" else products
    constexprs |= {"BLOCK": block, "BLOCK_K": block_k}
    element = "*bf16" if dtype == "bf16" else "*fp32"
    signature: dict[str, str] = {}
    divisible: list[str] = []
    unit = "_column" if layout == "rows" else "_row"
    for name in _ARGUMENTS[kernel].split():
        if name in _MATRICES[kernel]:
            signature[name] = element
            divisible.append(name)
        elif name in _FLOATS:
            signature[name] = "*fp32"
            divisible.append(name)
        elif name in _SCALARS:
            signature[name] = "fp32"
        elif name.endswith(unit) and name not in _ALWAYS_ROWS:
            signature[name] = "constexpr"
            constexprs[name] = 1
        else:
            signature[name] = "i32"
            if name not in _LOOSE:
                divisible.append(name)
    for name in constexprs:
        signature.setdefault(name, "constexpr")
    return Configuration(
        kernel, dtype, target, constexprs, warps, stages, signature, tuple(divisible), layout
    )


# Strides of symmetric matrices, whose rows are contiguous.
_ALWAYS_ROWS: Final = ("r_row", "p_row", "left_row", "right_row")


def _rows_of(target: str) -> Iterator[Configuration]:
    """The rows of one architecture."""
    stages = 2 if target == "gfx942" else 3
    for layout in ("rows", "columns"):
        for scaled in (False, True):
            yield _row("gram", "bf16", target, block=128, block_k=64, warps=8, stages=stages, layout=layout, SCALED=scaled)
            yield _row("gram", "fp32", target, block=64, block_k=32, warps=4, stages=2 if target == "sm_100" else stages, layout=layout, SCALED=scaled)
            yield _row("apply", "bf16", target, block=128, block_k=64, warps=8, stages=stages, layout=layout, SCALED=scaled)
            yield _row("apply", "fp32", target, block=64, block_k=32, warps=4, stages=stages, layout=layout, SCALED=scaled)
    for scaled in (0, 1, 2):
        yield _row("polynomial", "bf16", target, block=128, block_k=64, warps=8, stages=stages, SCALED=scaled)
        yield _row("polynomial", "fp32", target, block=64, block_k=32, warps=4, stages=stages, SCALED=scaled)
    # Triton gives each warp rows of a product whose result is an operand of the next: 16 on NVIDIA, 32 on
    # AMD. With more warps than rows several do the same work.
    per_warp = 32 if target == "gfx942" else 16
    # On sm_80 the largest blocks of small_msign spill: narrow_msign takes their matrices, in one launch too.
    for block in (32, 64, 128):
        warps = block // per_warp
        together = 1 if block == 128 and target in ("sm_80", "gfx942") else 2
        if (block, target) != (128, "sm_80"):
            yield _row("small_msign", "bf16", target, block=block, block_k=block, warps=warps, stages=1)
        yield _row("narrow_msign", "bf16", target, block=block, block_k=64, warps=warps, stages=1, TOGETHER=together)
    for block in (32, 64):
        # Three tf32 products of a block of 64 leave no registers for a second n×n matrix.
        together = 4 if block == 32 else 1
        strip = 16 if block == 64 and target in ("sm_80", "sm_90") else 32
        warps = block // per_warp
        if (block, target) == (64, "sm_80"):
            # tf32x3 spills here with 4 warps and repeats itself with 8: plain float32, no tensor cores.
            yield _row("narrow_msign", "fp32", target, block=64, block_k=16, warps=8, stages=1, products="ieee", TOGETHER=1)
        else:
            yield _row("small_msign", "fp32", target, block=block, block_k=block, warps=warps, stages=1)
            yield _row("narrow_msign", "fp32", target, block=block, block_k=strip, warps=warps, stages=1, TOGETHER=together)
        yield _row("stiefel_retract", "fp32", target, block=block, block_k=strip, warps=warps, stages=1)
    yield _row("pre_step", "fp32", target, block=16, block_k=256, warps=4, stages=1, MOMENTUM=True, NESTEROV=True)
    yield _row("pre_step", "fp32", target, block=16, block_k=256, warps=4, stages=1, MOMENTUM=True, NESTEROV=False)
    yield _row("pre_step", "fp32", target, block=16, block_k=256, warps=4, stages=1, MOMENTUM=False, NESTEROV=False)


SHIPPED: Final[tuple[Configuration, ...]] = tuple(
    row for target in TARGETS for row in _rows_of(target)
)
"""What the dispatch chooses from, by architecture, kernel, precision, layout, flags and size."""


@functools.cache
def choose(
    kernel: str,
    dtype: Precision,
    target: str,
    *,
    side: int = 0,
    layout: str = "rows",
    **flags: bool | int,
) -> Configuration | None:
    """The row of the table for a kernel; None where no row holds a short side this long.

    Kernels that keep a matrix on the chip need `side ≤ BLOCK`: the smallest block that holds it.
    """
    held = [
        row
        for row in SHIPPED
        if (row.kernel, row.dtype, row.target, row.layout) == (kernel, dtype, target, layout)
        and all(row.constexprs.get(name) == value for name, value in flags.items())
        and (side == 0 or side <= int(row.constexprs["BLOCK"]))
    ]
    return min(held, key=lambda row: int(row.constexprs["BLOCK"]), default=None)

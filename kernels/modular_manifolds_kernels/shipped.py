"""The table of configurations: all ways in which kernels are compiled and run."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modular_manifolds_kernels.configuration import TARGETS as TARGETS
from modular_manifolds_kernels.configuration import TENSORS_PER_LAUNCH, row
from modular_manifolds_kernels.configuration import Configuration as Configuration
from modular_manifolds_kernels.configuration import Precision as Precision


class _Programs(Mapping[str, Any]):
    """The Triton functions by name, imported at their first use, because Triton may be missing."""

    names = (
        "gram",
        "polynomial",
        "apply",
        "small_msign",
        "narrow_msign",
        "tiled_msign",
        "stiefel_retract",
        "tiled_retract",
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


def _rows_of(target: str) -> Iterator[Configuration]:
    """The rows of one architecture."""
    yield from _products(target)
    yield from _whole_matrices(target)
    yield row("move", "fp32", target, 16, 256, warps=4, stages=1)
    for momentum, nesterov in ((True, True), (True, False), (False, False)):
        yield row(
            "pre_step", "fp32", target, 16, 256, warps=4, stages=1,
            MOMENTUM=momentum, NESTEROV=nesterov,
        )  # fmt: skip
    yield from _step_rows(target)


def _step_rows(target: str) -> Iterator[Configuration]:
    """The rows of an optimiser's step without matrix products."""
    yield row("unit_length", "fp32", target, 16, 256, warps=4, stages=1)
    yield row("unit_rows", "fp32", target, 8, 256, warps=4, stages=1)
    for split in (False, True):
        yield row("overlaps", "fp32", target, 32, 128, warps=8, stages=1, SPLIT=split)
        for factored in (False, True):
            yield row(
                "certify", "fp32", target, 32, 128, warps=4, stages=1,
                SPLIT=split, FACTORED=factored,
            )  # fmt: skip
    yield row("gate", "fp32", target, 2, 128, warps=4, stages=1)
    yield row(
        "land", "fp32", target, 8, 256, warps=4, stages=1, MASTERS=False, COUNT=TENSORS_PER_LAUNCH
    )
    yield row(
        "land", "bf16", target, 8, 256, warps=4, stages=1, MASTERS=True, COUNT=TENSORS_PER_LAUNCH
    )
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for dtype in precisions:
        for momentum, nesterov in ((True, True), (True, False), (False, False)):
            yield row(
                "descend", dtype, target, 8, 256, warps=4, stages=1,
                MOMENTUM=momentum, NESTEROV=nesterov, COUNT=TENSORS_PER_LAUNCH,
            )  # fmt: skip


def _products(target: str) -> Iterator[Configuration]:
    """The rows of kernels for one matrix product of any size."""
    stages = 2 if target == "gfx942" else 3
    for layout in ("rows", "columns"):
        for s in (False, True):
            yield row(
                "gram", "bf16", target, 128, 64, warps=8, stages=stages, layout=layout, SCALED=s
            )
            # On sm_100 Triton 3.5 spills with fewer warps.
            gram_warps, gram_stages = (8, 2) if target == "sm_100" else (4, stages)
            yield row(
                "gram",
                "fp32",
                target,
                64,
                32,
                warps=gram_warps,
                stages=gram_stages,
                layout=layout,
                SCALED=s,
            )
            yield row(
                "apply", "bf16", target, 128, 64, warps=8, stages=stages, layout=layout, SCALED=s
            )
            yield row(
                "apply", "fp32", target, 64, 32, warps=4, stages=stages, layout=layout, SCALED=s
            )
    # On sm_100 Triton 3.5 spills with 64 columns at a time.
    inner, polynomial_stages = (128, 2) if target == "sm_100" else (64, stages)
    for scaled in (0, 1, 2):
        yield row(
            "polynomial",
            "bf16",
            target,
            128,
            inner,
            warps=8,
            stages=polynomial_stages,
            SCALED=scaled,
        )
        yield row("polynomial", "fp32", target, 64, 32, warps=4, stages=stages, SCALED=scaled)


def _whole_matrices(target: str) -> Iterator[Configuration]:
    """The rows of kernels in which one program handles a whole matrix."""
    # If a product's result is an operand of the next one, Triton gives each warp 16 of its rows on NVIDIA and 32 on AMD.
    # More warps would repeat the same work.
    per_warp = 32 if target == "gfx942" else 16
    # On sm_80 the largest blocks of small_msign spill, so narrow_msign handles these matrices, also in one launch.
    for block in (32, 64, 128):
        warps = block // per_warp
        if (block, target) != (128, "sm_80"):
            yield row("small_msign", "bf16", target, block, block, warps=warps, stages=1)
        # bfloat16 is too coarse for two steps on one Gram matrix.
        yield row(
            "narrow_msign", "bf16", target, block, 64, warps=warps, stages=1, STEPS_PER_GRAM=1
        )
    for block in (32, 64):
        # The three tf32 products of a block of 64 leave no registers for a second n×n matrix.
        steps = 4 if block == 32 else 1
        strip = 16 if block == 64 and target in ("sm_80", "sm_90") else 32
        warps = block // per_warp
        # On sm_90 and sm_100 strips of 32 spill here.
        narrow = 16 if target in ("sm_90", "sm_100") else strip
        yield row("stiefel_retract", "fp32", target, block, narrow, warps=warps, stages=1)
        products = "tf32x3"
        if (block, target) == (64, "sm_80"):
            # tf32x3 spills with 4 warps and repeats work with 8, so plain float32 without tensor cores is used.
            warps, products = 8, "ieee"
        else:
            yield row("small_msign", "fp32", target, block, block, warps=warps, stages=1)
        yield row(
            "narrow_msign", "fp32", target, block, strip, warps=warps, stages=1,
            products=products, STEPS_PER_GRAM=steps,
        )  # fmt: skip
    # In float32 a matrix with a side of 128 does not fit in registers, so it is processed in tiles.
    for kernel in ("tiled_msign", "tiled_retract"):
        yield row(kernel, "fp32", target, 128, 16, warps=4, stages=2, TILE=64)


SHIPPED: Final[tuple[Configuration, ...]] = tuple(
    row for target in TARGETS for row in _rows_of(target)
)
"""All rows; `choose` selects by architecture, kernel, precision, layout, flags and size."""


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
    """The row of the table for a kernel; None if no row has a block for this side.

    Kernels that keep a matrix on the chip need `side ≤ BLOCK`; the row with the smallest such block is chosen.
    """
    candidates = [
        row
        for row in SHIPPED
        if (row.kernel, row.dtype, row.target, row.layout) == (kernel, dtype, target, layout)
        and all(row.constexprs.get(name) == value for name, value in flags.items())
        and (side == 0 or side <= int(row.constexprs["BLOCK"]))
    ]
    return min(candidates, key=lambda row: int(row.constexprs["BLOCK"]), default=None)

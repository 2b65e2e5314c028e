"""One way to compile one kernel, with the types that Triton must be told of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

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
        signature: type of every argument, in order; of a list of tensors, the type of each.
        divisible: arguments known to be multiples of 16.
        layout: `"rows"` where the long side is contiguous, `"columns"` where the short side is.
    """

    kernel: str
    dtype: str
    target: str
    constexprs: Mapping[str, int | str | bool]
    warps: int
    stages: int
    signature: Mapping[str, str | tuple[str, ...]]
    divisible: tuple[str, ...]
    layout: str = "rows"


# Pointers that hold matrices in the precision of the products, those that always hold float32, scalars.
_MATRICES: Final[Mapping[str, tuple[str, ...]]] = {
    "gram": ("x", "r"),
    "polynomial": ("left", "right", "out"),
    "apply": ("p", "x", "out"),
    "small_msign": ("x", "out"),
    "narrow_msign": ("x", "out", "held"),
    "tiled_msign": ("x", "out", "held"),
    "stiefel_retract": ("w", "a", "out"),
    "tiled_retract": ("w", "a", "out", "held"),
    "move": ("w", "a", "out"),
    "pre_step": ("momentum", "gradient", "out"),
    "overlaps": ("a", "g", "omega", "left", "right"),
    "certify": ("a",),
    "descend": ("gradients",),
    "unit_length": ("x", "out"),
    "unit_rows": ("x", "out"),
    "gate": (),
    "land": ("weights",),
}
_FLOATS: Final = (
    "largest",
    "squares",
    "scales",
    "coefficients",
    "residual",
    "lengths",
    "sums",
    "gap",
)
_SCALARS: Final = ("a", "b", "c", "eta", "mu")
_OF_KERNEL: Final[Mapping[str, Mapping[str, str]]] = {
    "certify": {
        "info": "*i32",
        **dict.fromkeys(("share", "squares", "each", "kept", "whole", "rounding", "least"), "fp32"),
    },
    "descend": {"momenta": "*fp32", "ok": "*i8", "out": "*fp32"},
    "gate": {"counts": "*fp32", "ok": "*i8", "reached": "*i8", "bound": "fp32", "weights": "i32"},
    "land": {"masters": "*fp32", "landed": "*fp32", "start": "*fp32", "moving": "*i8"},
}
"""Types that a name has in one kernel only."""
_LISTS: Final = {"descend": ("gradients", "momenta"), "land": ("weights", "masters")}
"""Arguments that are lists of tensors."""
TOGETHER: Final = 48
"""How many tensors a kernel takes in one of its lists."""
_ARGUMENTS: Final[Mapping[str, str]] = {
    "gram": "x r largest squares n k x_batch x_row x_column r_batch r_row parts",
    "polynomial": "left right out squares a b c n parts left_batch left_row right_batch right_row"
    " out_batch out_row",
    "apply": "p x out largest squares scales a c n k parts tiles p_batch p_row x_batch x_row x_column"
    " out_batch out_row out_column",
    "small_msign": "x out scales coefficients n k steps x_batch x_row x_column"
    " out_batch out_row out_column",
    "narrow_msign": "x out held scales coefficients n k steps x_batch x_row x_column"
    " out_batch out_row out_column",
    "tiled_msign": "x out held scales coefficients n k width steps together x_batch x_row x_column"
    " out_batch out_row out_column",
    "stiefel_retract": "w a out residual lengths eta each unit n k corrections w_batch w_row w_column"
    " a_batch a_row a_column out_batch out_row out_column",
    "tiled_retract": "w a out held residual lengths eta each unit n k width corrections w_batch w_row w_column"
    " a_batch a_row a_column out_batch out_row out_column",
    "move": "w a out lengths eta each unit n k w_batch w_row w_column"
    " a_batch a_row a_column out_batch out_row out_column",
    "pre_step": "momentum gradient out largest squares mu n k"
    " momentum_batch momentum_row momentum_column gradient_batch gradient_row gradient_column"
    " out_batch out_row out_column",
    "overlaps": "a g omega left right sums n k side down across parts a_batch a_row a_column g_batch g_row g_column"
    " omega_batch omega_row omega_column left_batch left_row left_column right_batch right_row right_column",
    "certify": "a sums scales info gap share squares each kept whole rounding least n k parts"
    " a_batch a_row a_column",
    "descend": "gradients momenta ok out largest mu n k matrices weight_row weight_column",
    "unit_length": "x out largest squares n k parts x_batch x_row x_column out_batch out_row out_column",
    "unit_rows": "x out n k x_batch x_row x_column out_batch out_row out_column",
    "gate": "largest counts ok reached bound weights",
    "land": "weights masters landed start moving n k matrices weight_row weight_column"
    " landed_batch landed_row landed_column start_batch start_row start_column moving_batch moving_row",
}
_LOOSE: Final = (
    "parts",
    "tiles",
    "steps",
    "together",
    "corrections",
    "each",
    "unit",
    "matrices",
    "ok",
    "moving",
    "moving_batch",
    "moving_row",
)
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
    """A row of the table, with the signature that its kernel and layout give."""
    constexprs: dict[str, int | str | bool] = dict(flags)
    if kernel not in _FLOAT32_ONLY:
        constexprs["HALF"] = dtype == "bf16"
    if kernel not in _WITHOUT_PRODUCTS:
        constexprs["PRECISION"] = "ieee" if target == "gfx942" or dtype == "bf16" else products
    constexprs |= {"BLOCK": block, "BLOCK_K": block_k}
    element = "*bf16" if dtype == "bf16" else "*fp32"
    signature: dict[str, str | tuple[str, ...]] = {}
    divisible: list[str] = []
    unit = "_column" if layout == "rows" else "_row"
    own = _OF_KERNEL.get(kernel, {})
    for name in _ARGUMENTS[kernel].split():
        if name in own:
            signature[name] = own[name]
            if own[name].startswith("*") and name not in _LOOSE:
                divisible.append(name)
        elif name in _MATRICES[kernel]:
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
    for name in _LISTS.get(kernel, ()):
        signature[name] = (str(signature[name]),) * TOGETHER
    for name in constexprs:
        signature.setdefault(name, "constexpr")
    return Configuration(
        kernel, dtype, target, constexprs, warps, stages, signature, tuple(divisible), layout
    )


# Strides of symmetric matrices, whose rows are contiguous.
_ALWAYS_ROWS: Final = ("r_row", "p_row", "left_row", "right_row")

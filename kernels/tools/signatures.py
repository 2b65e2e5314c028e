"""The types that Triton must be told of a kernel's arguments to compile it without a launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modular_manifolds_kernels.shipped import Configuration

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
}
_FLOATS: Final = ("largest", "squares", "scales", "coefficients", "residual", "lengths")
_SCALARS: Final = ("a", "b", "c", "eta", "mu")
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
}
_LOOSE: Final = ("parts", "tiles", "steps", "together", "corrections", "each", "unit")
# Strides of symmetric matrices, whose rows are contiguous.
_ALWAYS_ROWS: Final = ("r_row", "p_row", "left_row", "right_row")


def signature_of(row: Configuration) -> tuple[dict[str, str], dict[str, Any], tuple[str, ...]]:
    """The type of every argument of a row, in order; its compile-time values; and the arguments that are multiples of 16."""
    constexprs: dict[str, Any] = dict(row.constexprs)
    element = "*bf16" if row.dtype == "bf16" else "*fp32"
    signature: dict[str, str] = {}
    divisible: list[str] = []
    unit = "_column" if row.layout == "rows" else "_row"
    for name in _ARGUMENTS[row.kernel].split():
        if name in _MATRICES[row.kernel]:
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
    return signature, constexprs, tuple(divisible)

"""The argument types of the kernels, which Triton needs to compile them without a launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modular_manifolds_kernels.configuration import TENSORS_PER_LAUNCH, Configuration

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
"""Types of arguments in one kernel that differ from those of the same name in others."""
_LISTS: Final = {"descend": ("gradients", "momenta"), "land": ("weights", "masters")}
"""Arguments that are lists of tensors."""
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
    "tiled_msign": "x out held scales coefficients n k width steps steps_per_gram x_batch x_row x_column"
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
    "steps_per_gram",
    "corrections",
    "each",
    "unit",
    "matrices",
    "ok",
    "moving",
    "moving_batch",
    "moving_row",
)
# Strides of symmetric matrices, whose rows are contiguous.
_ALWAYS_ROWS: Final = ("r_row", "p_row", "left_row", "right_row")


def signature_of(
    row: Configuration,
) -> tuple[dict[str, str | tuple[str, ...]], dict[str, Any], tuple[str, ...]]:
    """The types of a row's arguments, in order; its compile-time values; and the arguments that are multiples of 16.

    An argument that is a list of tensors has a tuple of their types.
    """
    constexprs: dict[str, Any] = dict(row.constexprs)
    element = "*bf16" if row.dtype == "bf16" else "*fp32"
    signature: dict[str, str | tuple[str, ...]] = {}
    divisible: list[str] = []
    unit = "_column" if row.layout == "rows" else "_row"
    own = _OF_KERNEL.get(row.kernel, {})
    for name in _ARGUMENTS[row.kernel].split():
        if name in own:
            signature[name] = own[name]
            if own[name].startswith("*") and name not in _LOOSE:
                divisible.append(name)
        elif name in _MATRICES[row.kernel]:
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
    for name in _LISTS.get(row.kernel, ()):
        signature[name] = (str(signature[name]),) * TENSORS_PER_LAUNCH
    for name in constexprs:
        signature.setdefault(name, "constexpr")
    return signature, constexprs, tuple(divisible)

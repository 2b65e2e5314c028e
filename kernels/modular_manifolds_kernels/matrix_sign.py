"""The matrix sign by kernels: one launch if a matrix fits on the chip, else a few launches for each step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds_kernels import launches
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.launches import Sizes, as_wide, stack, storage
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision, choose

STEPS_PER_GRAM: Final = 4
"""The number of steps on one Gram matrix of a long X in float32, before it is computed anew from X. It holds squares of
singular values, so values below `√eps` are noise, which every step amplifies. In bfloat16 it is computed anew after
every step, which is the standard form: with two steps on one Gram matrix, singular values k^-0.5 came out at 9 to 208,
because the second polynomial is steep at the values to which the first maps the large singular values."""

ONE_PROGRAM_MAX_COLUMNS: Final = 4096
"""The number of columns (long side) up to which one program handles a whole matrix with a short side that fits."""


def one_launch_row(n: int, k: int, precision: Precision, target: str) -> Configuration | None:
    """The row of the kernel that takes a whole matrix n×k, n ≤ k, in one launch; None if none does."""
    small = choose("small_msign", precision, target, side=k)
    if small is not None or k > ONE_PROGRAM_MAX_COLUMNS:
        return small
    narrow = choose("narrow_msign", precision, target, side=n)
    return narrow or choose("tiled_msign", precision, target, side=n)


def uses_gram_form(n: int, k: int) -> bool:
    """Whether the Gram form is faster for a matrix n×k: if k ≥ 1.5 n."""
    return 2 * k >= 3 * n


def msign_and_scale(
    machine: Machine,
    x: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`naive.msign_and_scale`: the result contiguous, in the shape and dtype of `x`; the scale float32, of shape (*batch,).

    The scale needs no extra launch: the launch that divides X by it writes it. The Gram form is used if the products
    are in float32 and k ≥ 1.5 n, else the standard form.

    Args:
        machine: the machine that runs the kernels.
        x: shape (*batch, m, n), float32, bfloat16 or float16.
        coefficients: the polynomials, in order; at least one.
        precision: of the operands of the matrix products; sums are float32.
        largest: the `largest` of `pre_step_` for `x`, shape (*batch, parts); it saves a pass over memory.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out, torch.zeros(x.shape[:-2], dtype=torch.float32, device=x.device)
    scales = torch.empty(x.shape[:-2], dtype=torch.float32, device=x.device)
    source, target = as_wide(stack(x)), as_wide(stack(out))
    row = one_launch_row(source.shape[1], source.shape[2], precision, machine.target)
    # The storage between two steps must not be coarser than the products.
    rounds_storage = precision == "fp32" and x.dtype != torch.float32
    stores_steps = row is None or row.kernel == "narrow_msign"
    result = (
        launches.empty_like(target, torch.float32) if rounds_storage and stores_steps else target
    )
    if row is not None:
        _one_launch(machine, row, source, result, scales, coefficients)
    else:
        if largest is None:
            largest = launches.largest_entries(machine, stack(x))
        parts = largest.reshape(source.shape[0], -1)
        if precision == "fp32" and uses_gram_form(source.shape[1], source.shape[2]):
            _gram_form(machine, source, result, scales, coefficients, parts)
        else:
            _standard_form(machine, source, result, scales, coefficients, precision, parts)
    if result is not target:
        target.copy_(result)
    return out, scales


def _one_launch(
    machine: Machine,
    row: Configuration,
    x: Tensor,
    out: Tensor,
    scales: Tensor,
    coefficients: Sequence[Polynomial],
) -> None:
    batch, n, k = x.shape
    table = _on_device(tuple(coefficients), x.device)
    strides = (*x.stride(), *out.stride())
    sizes = (n, k, len(coefficients), *strides)
    if row.kernel == "small_msign":
        machine.launch(row, (batch,), x, out, scales, table, *sizes)
        return
    if row.kernel == "tiled_msign":
        workspace, width = launches.scratch(row, x, squares=4)
        steps_per_gram = STEPS_PER_GRAM if uses_gram_form(n, k) else 1
        counts = (n, k, width, len(coefficients), steps_per_gram)
        machine.launch(row, (batch,), x, out, workspace, scales, table, *counts, *strides)
        return
    workspace = out
    if row.constexprs["STEPS_PER_GRAM"] != 1:
        block = int(row.constexprs["BLOCK"])
        workspace = torch.empty(batch, block, block, dtype=torch.float32, device=x.device)
    machine.launch(row, (batch,), x, out, workspace, scales, table, *sizes)


@functools.lru_cache(maxsize=256)
def _on_device(coefficients: tuple[Polynomial, ...], device: torch.device) -> Tensor:
    """The coefficients as a tensor on the device, cached, so that no step waits for a copy."""
    return torch.tensor(coefficients, dtype=torch.float32).flatten().to(device)


def _standard_form(
    machine: Machine,
    x: Tensor,
    out: Tensor,
    scales: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor,
) -> None:
    """`X ← a X + (b R + c R²) X` with `R = X Xᵀ`, three launches for each step."""
    for step, (a, b, c) in enumerate(coefficients):
        r, squares = launches.gram(machine, x, precision, largest if step == 0 else None)
        sizes = Sizes(largest, squares, scales) if step == 0 else None
        scaled = 2 if step == 0 else 0
        p = launches.polynomial(machine, r, r, (0.0, b, c), precision, sizes=sizes, scaled=scaled)
        last = step + 1 == len(coefficients)
        out_or_buffer = out if last else launches.empty_like(x, storage(precision))
        x = launches.apply(machine, p, x, a, 1.0, precision, out=out_or_buffer, sizes=sizes)


def _gram_form(
    machine: Machine,
    x: Tensor,
    out: Tensor,
    scales: Tensor,
    coefficients: Sequence[Polynomial],
    largest: Tensor,
) -> None:
    """Groups of steps on `R = X Xᵀ` in float32: `T = aI + bR + cR²`, `Q ← Q T`, `R ← T R T`; then `X ← Q X`."""
    for start in range(0, len(coefficients), STEPS_PER_GRAM):
        group = coefficients[start : start + STEPS_PER_GRAM]
        first, last = start == 0, start + STEPS_PER_GRAM >= len(coefficients)
        r, squares = launches.gram(machine, x, "fp32", largest if first else None)
        sizes = Sizes(largest, squares, scales) if first else None
        q = _polynomial_in(machine, r, group, sizes)
        out_or_buffer = out if last else launches.empty_like(x, torch.float32)
        x = launches.apply(machine, q, x, 0.0, 1.0, "fp32", out=out_or_buffer, sizes=sizes)


def _polynomial_in(
    machine: Machine,
    r: Tensor,
    coefficients: Sequence[Polynomial],
    sizes: Sizes | None,
) -> Tensor:
    """`Q = Π T_i`, the polynomial in R by which the steps of one group multiply X."""
    q: Tensor | None = None
    product = (0.0, 0.0, 1.0)
    for step, polynomial in enumerate(coefficients):
        scaled = 2 if sizes is not None and step == 0 else 0
        t = launches.polynomial(machine, r, r, polynomial, "fp32", sizes=sizes, scaled=scaled)
        q = t if q is None else launches.polynomial(machine, q, t, product, "fp32")
        if step + 1 < len(coefficients):
            once = 1 if scaled else 0
            r = launches.polynomial(machine, r, t, product, "fp32", sizes=sizes, scaled=once)
            r = launches.polynomial(machine, r, t, product, "fp32")
    assert q is not None, "a group holds at least one step"
    return q

"""The matrix sign by kernels: one launch if a matrix fits on the chip, else a few launches a step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds_kernels import launches
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.launches import Sizes, stack, storage, wide
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision, choose

TOGETHER: Final = 4
"""How many steps are made on one Gram matrix of a long X in float32. It holds squares of singular values: those
below the root of rounding are noise, which every step multiplies, so it is made anew from X after a few. In bfloat16
that is after every step, which is the standard form: two steps on one Gram matrix of singular values k^-0.5 left some
of 9 to 208, because the second polynomial is steep at the values at which the first left the large ones."""

LONGEST: Final = 4096
"""One program takes a matrix with a short side up to this long side; longer ones are worth many programs."""


def fits(n: int, k: int, precision: Precision, target: str) -> Configuration | None:
    """The row of the kernel that takes a whole matrix n×k, n ≤ k, in one launch; None if none does."""
    whole = choose("small_msign", precision, target, side=k)
    if whole is not None or k > LONGEST:
        return whole
    narrow = choose("narrow_msign", precision, target, side=n)
    return narrow or choose("tiled_msign", precision, target, side=n)


def long(n: int, k: int) -> bool:
    """Whether a matrix n×k is worth the Gram form: at least half again as long as wide."""
    return 2 * k >= 3 * n


def msign_and_scale(
    machine: Machine,
    x: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`naive.msign_and_scale`: the result contiguous, in the shape and dtype of `x`; the scale float32, of shape (*batch,).

    No launch is made for the scale: the launch that divides X by it writes it. Gram form if the products are float32 and X is at least half again as long as wide, else the standard form.

    Args:
        machine: the machine that runs the kernels.
        x: shape (*batch, m, n), float32, bfloat16 or float16.
        coefficients: the polynomials, in order; at least one.
        precision: of the operands of the matrix products; sums are float32.
        largest: what `pre_step_` found of `x`, shape (*batch, parts); it saves a pass over memory.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out, torch.zeros(x.shape[:-2], dtype=torch.float32, device=x.device)
    scales = torch.empty(x.shape[:-2], dtype=torch.float32, device=x.device)
    source, target = wide(stack(x)), wide(stack(out))
    row = fits(source.shape[1], source.shape[2], precision, machine.target)
    # What is stored between two steps must not be coarser than the products.
    coarse = precision == "fp32" and x.dtype != torch.float32
    between = row is None or row.kernel == "narrow_msign"
    held = launches.like(target, torch.float32) if coarse and between else target
    if row is not None:
        _one_launch(machine, row, source, held, scales, coefficients)
    else:
        if largest is None:
            largest = launches.largest_entries(machine, stack(x))
        parts = largest.reshape(source.shape[0], -1)
        if precision == "fp32" and long(source.shape[1], source.shape[2]):
            _gram_form(machine, source, held, scales, coefficients, parts)
        else:
            _standard_form(machine, source, held, scales, coefficients, precision, parts)
    if held is not target:
        target.copy_(held)
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
        held, width = launches.scratch(row, x, squares=4)
        together = TOGETHER if long(n, k) else 1
        counts = (n, k, width, len(coefficients), together)
        machine.launch(row, (batch,), x, out, held, scales, table, *counts, *strides)
        return
    held = out
    if row.constexprs["TOGETHER"] != 1:
        block = int(row.constexprs["BLOCK"])
        held = torch.empty(batch, block, block, dtype=torch.float32, device=x.device)
    machine.launch(row, (batch,), x, out, held, scales, table, *sizes)


@functools.lru_cache(maxsize=256)
def _on_device(coefficients: tuple[Polynomial, ...], device: torch.device) -> Tensor:
    """The coefficients in memory that a kernel can read: copied there once, so that no step waits for a copy."""
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
    """`X ← a X + (b R + c R²) X` with `R = X Xᵀ`, three launches a step."""
    for step, (a, b, c) in enumerate(coefficients):
        r, squares = launches.gram(machine, x, precision, largest if step == 0 else None)
        sizes = Sizes(largest, squares, scales) if step == 0 else None
        scaled = 2 if step == 0 else 0
        p = launches.polynomial(machine, r, r, (0.0, b, c), precision, sizes=sizes, scaled=scaled)
        last = step + 1 == len(coefficients)
        to = out if last else launches.like(x, storage(precision))
        x = launches.apply(machine, p, x, a, 1.0, precision, out=to, sizes=sizes)


def _gram_form(
    machine: Machine,
    x: Tensor,
    out: Tensor,
    scales: Tensor,
    coefficients: Sequence[Polynomial],
    largest: Tensor,
) -> None:
    """In float32 a few steps on `R = X Xᵀ`: `T = aI + bR + cR²`, `Q ← Q T`, `R ← T R T`; then `X ← Q X`, and again."""
    for start in range(0, len(coefficients), TOGETHER):
        group = coefficients[start : start + TOGETHER]
        first, last = start == 0, start + TOGETHER >= len(coefficients)
        r, squares = launches.gram(machine, x, "fp32", largest if first else None)
        sizes = Sizes(largest, squares, scales) if first else None
        q = _polynomial_in(machine, r, group, sizes)
        to = out if last else launches.like(x, torch.float32)
        x = launches.apply(machine, q, x, 0.0, 1.0, "fp32", out=to, sizes=sizes)


def _polynomial_in(
    machine: Machine,
    r: Tensor,
    coefficients: Sequence[Polynomial],
    sizes: Sizes | None,
) -> Tensor:
    """The polynomial in R that all the steps together multiply X by."""
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

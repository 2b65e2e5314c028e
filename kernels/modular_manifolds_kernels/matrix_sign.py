"""The matrix sign by kernels: one launch where a matrix fits on the chip, else a few launches a step."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds_kernels import launches
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.launches import Sizes, stack, storage, wide
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision, choose

TOGETHER: Final[Mapping[Precision, int]] = {"bf16": 2, "fp32": 4}
"""How many steps are made on one Gram matrix. It holds squares of singular values: those below the root
of rounding are noise, which every step multiplies, so it is made anew from X after a few."""

LONGEST: Final = 4096
"""One program takes a matrix with a short side up to this long side; longer ones are worth many programs."""


def fits(n: int, k: int, precision: Precision, target: str) -> Configuration | None:
    """The row of the kernel that takes a whole matrix n×k, n ≤ k, in one launch; None where none does."""
    whole = choose("small_msign", precision, target, side=k)
    if whole is not None or k > LONGEST:
        return whole
    narrow = choose("narrow_msign", precision, target, side=n)
    return narrow or choose("tiled_msign", precision, target, side=n)


def long(n: int, k: int) -> bool:
    """Whether a matrix n×k is worth the Gram form: at least half again as long as wide."""
    return 2 * k >= 3 * n


def msign(
    machine: Machine,
    x: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor | None = None,
) -> Tensor:
    """What `naive.msign` computes, in a new contiguous tensor of the shape and dtype of `x`.

    Gram form where X is at least half again as long as wide, else the standard form.

    Args:
        machine: where.
        x: shape (*batch, m, n), float32, bfloat16 or float16.
        coefficients: the polynomials, in order; at least one.
        precision: of the operands of the matrix products; sums are float32.
        largest: what `pre_step_` found of `x`, shape (*batch, parts); it saves a pass over memory.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out
    source, target = wide(stack(x)), wide(stack(out))
    row = fits(source.shape[1], source.shape[2], precision, machine.target)
    # What is stored between two steps must not be coarser than the products.
    coarse = precision == "fp32" and x.dtype != torch.float32
    between = row is None or row.kernel == "narrow_msign"
    held = launches.like(target, torch.float32) if coarse and between else target
    if row is not None:
        _one_launch(machine, row, source, held, coefficients)
    else:
        if largest is None:
            largest = launches.largest_entries(machine, stack(x))
        parts = largest.reshape(source.shape[0], -1)
        iterate = _gram_form if long(source.shape[1], source.shape[2]) else _standard_form
        iterate(machine, source, held, coefficients, precision, parts)
    if held is not target:
        target.copy_(held)
    return out


def _one_launch(
    machine: Machine,
    row: Configuration,
    x: Tensor,
    out: Tensor,
    coefficients: Sequence[Polynomial],
) -> None:
    batch, n, k = x.shape
    table = _on_device(tuple(coefficients), x.device)
    strides = (*x.stride(), *out.stride())
    sizes = (n, k, len(coefficients), *strides)
    if row.kernel == "small_msign":
        machine.launch(row, (batch,), x, out, table, *sizes)
        return
    if row.kernel == "tiled_msign":
        held, width = launches.scratch(row, x, squares=4)
        together = TOGETHER["fp32"] if long(n, k) else 1
        counts = (n, k, width, len(coefficients), together)
        machine.launch(row, (batch,), x, out, held, table, *counts, *strides)
        return
    block = int(row.constexprs["BLOCK"])
    dtype = torch.bfloat16 if row.constexprs["HALF"] else torch.float32
    held = torch.empty(batch, block, block, dtype=dtype, device=x.device)
    machine.launch(row, (batch,), x, out, held, table, *sizes)


@functools.lru_cache(maxsize=256)
def _on_device(coefficients: tuple[Polynomial, ...], device: torch.device) -> Tensor:
    """The coefficients where a kernel can read them: copied there once, so that no step waits for a copy."""
    return torch.tensor(coefficients, dtype=torch.float32).flatten().to(device)


def _standard_form(
    machine: Machine,
    x: Tensor,
    out: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor,
) -> None:
    """`X ← a X + (b R + c R²) X` with `R = X Xᵀ`, three launches a step."""
    sizes: Sizes | None = None
    for step, (a, b, c) in enumerate(coefficients):
        r, squares = launches.gram(machine, x, precision, largest if step == 0 else None)
        sizes = Sizes(largest, squares) if step == 0 else None
        scaled = 2 if step == 0 else 0
        p = launches.polynomial(machine, r, r, (0.0, b, c), precision, sizes=sizes, scaled=scaled)
        last = step + 1 == len(coefficients)
        to = out if last else launches.like(x, storage(precision))
        x = launches.apply(machine, p, x, a, 1.0, precision, out=to, sizes=sizes)


def _gram_form(
    machine: Machine,
    x: Tensor,
    out: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor,
) -> None:
    """A few steps on `R = X Xᵀ`: `T = aI + bR + cR²`, `Q ← Q T`, `R ← T R T`; then `X ← Q X`, and again."""
    sizes: Sizes | None = None
    together = TOGETHER[precision]
    for start in range(0, len(coefficients), together):
        group = coefficients[start : start + together]
        first, last = start == 0, start + together >= len(coefficients)
        r, squares = launches.gram(machine, x, precision, largest if first else None)
        sizes = Sizes(largest, squares) if first else None
        q = _polynomial_in(machine, r, group, precision, sizes)
        to = out if last else launches.like(x, storage(precision))
        x = launches.apply(machine, q, x, 0.0, 1.0, precision, out=to, sizes=sizes)


def _polynomial_in(
    machine: Machine,
    r: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    sizes: Sizes | None,
) -> Tensor:
    """The polynomial in R that all the steps together multiply X by."""
    q: Tensor | None = None
    product = (0.0, 0.0, 1.0)
    for step, polynomial in enumerate(coefficients):
        scaled = 2 if sizes is not None and step == 0 else 0
        t = launches.polynomial(machine, r, r, polynomial, precision, sizes=sizes, scaled=scaled)
        q = t if q is None else launches.polynomial(machine, q, t, product, precision)
        if step + 1 < len(coefficients):
            once = 1 if scaled else 0
            r = launches.polynomial(machine, r, t, product, precision, sizes=sizes, scaled=once)
            r = launches.polynomial(machine, r, t, product, precision)
    assert q is not None, "a group holds at least one step"
    return q

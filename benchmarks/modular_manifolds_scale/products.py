"""Products of matrices in a step of each solver, by shape: the plans of an accelerator, on torch's operators.

`tests/benchmarks/test_scale_counts.py` holds these formulas to what the library's own plans multiply.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import torch

from modular_manifolds.linalg.matrix_sign import BF16_ACCURACY_SHARE
from modular_manifolds.linalg.matrix_sign import BF16_MIN_COLUMNS as SIGN_MIN_COLUMNS
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.norms.spectral import MSIGN_FLOOR, msign_accuracy
from modular_manifolds.solvers.floors import promised
from modular_manifolds.solvers.skew_sign import BF16_MIN_COLUMNS as SKEW_MIN_COLUMNS
from modular_manifolds.solvers.skew_sign import TOLERANCE_TO_FLOOR, SkewSign
from modular_manifolds_scale.machine import Machine, Precision, Seconds

NEWTON_SCHULZ_STEPS: Final = 5
"""The steps of `torch.optim.Muon`."""
ITEM: Final[dict[Precision, int]] = {"bfloat16": 2, "float32": 4}
"""The bytes of a number."""


@dataclass(frozen=True)
class Product:
    """The product of a matrix of `sides[0]` × `sides[1]` and one of `sides[1]` × `sides[2]`.

    Args:
        sides: rows of the result, common side, columns of the result.
        precision: that of both factors.
        count: the number of such products.
        long: the index of the side that rows of the weight run along; None if there is none.
    """

    sides: tuple[float, float, float]
    precision: Precision
    count: float
    long: int | None = None

    @property
    def multiplications(self) -> float:
        """Scalar multiplications of all `count` products."""
        return self.count * math.prod(self.sides)

    def cut(self, ranks: int) -> Product:
        """The product of one rank, if each rank holds a part of the rows."""
        if self.long is None:
            return self
        sides = [*self.sides]
        sides[self.long] /= ranks
        return replace(self, sides=(sides[0], sides[1], sides[2]))

    def seconds(self, machine: Machine) -> Seconds:
        """The time of its multiplications or of its three matrices in memory, whichever is longer."""
        rows, common, columns = self.sides
        numbers = rows * common + common * columns + rows * columns
        flops = 2 * self.multiplications / machine.rate(self.precision)
        memory = self.count * numbers * ITEM[self.precision] / machine.memory_rate
        return Seconds(flops=flops) if flops >= memory else Seconds(memory=memory)


def skew_sign(m: int, n: int, *, reduced: bool = False) -> list[Product]:
    """Manifold Muon on one matrix with m ≥ n: Γ, its sign, the direction and the retraction.

    Γ is m×m if m ≤ 2n, and 2n×2n otherwise or if `reduced`. Rows of W are then met in five products.
    """
    whole = m <= 2 * n and not reduced
    k = m if whole else 2 * n
    sign: Precision = "bfloat16" if k >= SKEW_MIN_COLUMNS else "float32"
    polynomials = Product((k, k, k), sign, 3 * skew_polynomials(sign))
    retraction = [
        *_gram_and_product(m, n, "float32"),
        Product((n, n, n), "float32", 1),
    ]
    if whole:
        return [
            Product((m, n, m), "float32", 1),
            polynomials,
            Product((m, m, n), "float32", 3),
            *retraction,
        ]
    return [
        Product((n, m, n), "float32", 2, long=1),
        Product((m, n, n), "float32", 3, long=0),
        # A Cholesky factor and a triangular solve, n³/6 and n³/2.
        Product((n, n, n), "float32", 2 / 3),
        polynomials,
        Product((k, k, n), "float32", 2),
        *retraction,
    ]


def matrix_sign(m: int, n: int) -> list[Product]:
    """Steepest descent in a spectral norm without a manifold, for m ≥ n."""
    precision: Precision = "bfloat16" if n >= SIGN_MIN_COLUMNS else "float32"
    return _iterated(m, n, precision, sign_polynomials(n, precision))


def newton_schulz(m: int, n: int) -> list[Product]:
    """The five steps of `torch.optim.Muon` in bfloat16, for m ≥ n."""
    return _iterated(m, n, "bfloat16", NEWTON_SCHULZ_STEPS)


def products_of(solver: str, shape: tuple[int, ...], *, reduced: bool = False) -> list[Product]:
    """All products of a step of a stack of matrices, shape (*stack, m, n).

    Args:
        solver: the name of a solver in `optim.placement.PRODUCTS`.
        shape: the logical shape.
        reduced: as in `skew_sign`.
    """
    *stack, a, b = shape
    m, n = max(a, b), min(a, b)
    if solver == "skew-sign":
        found = skew_sign(m, n, reduced=reduced)
    elif solver == "norm-steepest":
        found = matrix_sign(m, n)
    else:
        raise KeyError(f"the products of the solver {solver!r} have not been counted")
    return stacked(found, math.prod(stack))


def stacked(products: Iterable[Product], depth: int) -> list[Product]:
    """The same products for each of `depth` matrices."""
    return [replace(each, count=each.count * depth) for each in products]


@functools.cache
def skew_polynomials(precision: Precision) -> int:
    """The number of polynomials of manifold Muon at its usual tolerance."""
    solver = SkewSign()
    half = precision == "bfloat16"
    promise = promised(solver.tolerance, torch.float32, half=half)
    floor = max(promise.wanted / TOLERANCE_TO_FLOOR, promise.lowest)
    return len(schedule(promise.accuracy, floor, half=half))


@functools.cache
def sign_polynomials(columns: int, precision: Precision) -> int:
    """The number of polynomials of a matrix sign at the accuracy of the spectral norms."""
    half = precision == "bfloat16"
    accuracy = msign_accuracy((columns, columns)) * (BF16_ACCURACY_SHARE if half else 1)
    return len(schedule(accuracy, MSIGN_FLOOR / columns**0.25, half=half))


def _iterated(m: int, n: int, precision: Precision, polynomials: int) -> list[Product]:
    """For each polynomial: a Gram matrix, its square, and the product with X."""
    once = [*_gram_and_product(m, n, precision), Product((n, n, n), precision, 1)]
    return stacked(once, polynomials)


def _gram_and_product(m: int, n: int, precision: Precision) -> list[Product]:
    return [
        Product((n, m, n), precision, 1, long=1),
        Product((m, n, n), precision, 1, long=0),
    ]

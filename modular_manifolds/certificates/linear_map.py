"""Linear parts of a network, multiplied into one matrix with an error bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from modular_manifolds.composition.folding import Algebra, carried
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps
MatrixOf = Callable[[Leaf], Tensor | None]
MapOf = Callable[[int], "LinearMap | None"]
"""The matrix of a part, as a function of the number of input features."""


@dataclass(frozen=True)
class LinearMap:
    """`matrix`, (out, in) in float64, within `error` of the true one in the Frobenius norm."""

    matrix: Tensor
    error: float = 0.0

    @property
    def size(self) -> float:
        """A bound on the Frobenius norm of the matrix, rounded up."""
        return float(torch.linalg.matrix_norm(self.matrix)) * (1 + self.matrix.numel() * EPS)

    def largest_singular_value(self) -> float:
        """An upper bound on `σ_max` of the true matrix: singular values differ by at most the error.

        Infinite if an entry is not finite.
        """
        if not bool(torch.isfinite(self.matrix).all()):
            return math.inf
        return largest_singular_value(self.matrix) + self.error

    def then(self, after: LinearMap) -> LinearMap:
        """`after(self(x))`.

        `fl(BA) = BA + E` with `|E| ≤ γ |B||A|`, and `‖|B||A|‖_F ≤ ‖B‖_F ‖A‖_F`; the error of each factor
        is multiplied by the norm of the other.
        """
        terms = self.matrix.shape[0] * EPS
        product = terms / (1 - terms) * after.size * self.size
        inherited = after.error * (self.size + self.error) + after.size * self.error
        return LinearMap(after.matrix @ self.matrix, (product + inherited) * (1 + 8 * EPS))

    def scaled(self, factor: float) -> LinearMap:
        """`factor · self(x)`, with one rounding for each entry."""
        error = abs(factor) * (self.error + EPS * self.size)
        return LinearMap(factor * self.matrix, error * (1 + 8 * EPS))

    def plus(self, other: LinearMap) -> LinearMap:
        """`self(x) + other(x)`, with one rounding for each entry."""
        error = self.error + other.error + EPS * (self.size + other.size)
        return LinearMap(self.matrix + other.matrix, error * (1 + 8 * EPS))


def matrix_of(leaf: Leaf) -> Tensor | None:
    """The current matrix of a linear atom; None for other leaves."""
    return None if leaf.matrix is None else cast("Tensor | None", leaf.matrix())


def no_matrix(leaf: Leaf) -> None:
    """A `matrix_of` without matrices, so that no leaf is multiplied out."""
    del leaf


def is_linear(matrix_of: MatrixOf) -> Algebra[bool]:
    """The rules that decide whether a part is a linear map of vectors with a known matrix."""
    return Algebra(
        "linear parts",
        leaf=lambda leaf: leaf.identity or matrix_of(leaf) is not None,
        series=all,
        parallel=lambda _: False,
        sum=all,
        scale=lambda _, part: part,
    )


def matrix_product(matrix_of: MatrixOf) -> Algebra[MapOf]:
    """The rules that multiply a linear part into one matrix; None for tuples and stacks of matrices."""

    def leaf_map(leaf: Leaf, size: int) -> LinearMap | None:
        matrix = matrix_of(leaf)
        if matrix is None:
            return LinearMap(torch.eye(size, dtype=torch.float64, device="cpu"))
        return LinearMap(matrix.detach().to("cpu", torch.float64)) if matrix.dim() == 2 else None

    def sum_maps(maps: Sequence[LinearMap | None]) -> LinearMap | None:
        known = [each for each in maps if each is not None]
        return reduce(LinearMap.plus, known) if len(known) == len(maps) else None

    return carried(
        "linear maps",
        leaf=leaf_map,
        onward=lambda f: 0 if f is None else len(f.matrix),
        then=lambda f, g: None if f is None or g is None else f.then(g),
        parallel=lambda _: None,
        total=sum_maps,
        scale=lambda c, f: None if f is None else f.scaled(c),
    )

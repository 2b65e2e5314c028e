"""Linear parts of a network multiplied out: one matrix, and a bound on the error of having computed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from modular_manifolds.composition.fold import Algebra, carried
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps
MatrixOf = Callable[[Leaf], Tensor | None]
MapOf = Callable[[int], "LinearMap | None"]
"""The matrix of a part for inputs of so many features."""


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
        """An upper bound on `σ_max` of the true matrix: no singular value is further off than the error.

        Infinite if an entry has left the range of float64.
        """
        if not bool(torch.isfinite(self.matrix).all()):
            return math.inf
        return largest_singular_value(self.matrix) + self.error

    def then(self, after: LinearMap) -> LinearMap:
        """`after(self(x))`.

        `fl(BA) = BA + E` with `|E| ≤ γ |B||A|`, and `‖|B||A|‖_F ≤ ‖B‖_F ‖A‖_F`; the errors of the two
        factors are carried through the other factor.
        """
        terms = self.matrix.shape[0] * EPS
        product = terms / (1 - terms) * after.size * self.size
        carried = after.error * (self.size + self.error) + after.size * self.error
        return LinearMap(after.matrix @ self.matrix, (product + carried) * (1 + 8 * EPS))

    def scaled(self, factor: float) -> LinearMap:
        """`factor · self(x)`: one rounding an entry."""
        error = abs(factor) * (self.error + EPS * self.size)
        return LinearMap(factor * self.matrix, error * (1 + 8 * EPS))

    def plus(self, other: LinearMap) -> LinearMap:
        """`self(x) + other(x)`: one rounding an entry."""
        error = self.error + other.error + EPS * (self.size + other.size)
        return LinearMap(self.matrix + other.matrix, error * (1 + 8 * EPS))


def matrix_of(leaf: Leaf) -> Tensor | None:
    """The matrix of a linear atom as it is now; None for everything else."""
    return None if leaf.matrix is None else cast("Tensor | None", leaf.matrix())


def nothing(leaf: Leaf) -> None:
    """The matrix of every leaf if none is to be multiplied out."""
    del leaf


def linear(matrix_of: MatrixOf) -> Algebra[bool]:
    """The rules by which a part is a linear map from vectors to vectors whose matrix can be had."""
    return Algebra(
        "linear parts",
        leaf=lambda leaf: leaf.identity or matrix_of(leaf) is not None,
        series=all,
        parallel=lambda _: False,
        sum=all,
        scale=lambda _, part: part,
    )


def multiplied_out(matrix_of: MatrixOf) -> Algebra[MapOf]:
    """The rules by which a linear part becomes one matrix; None on tuples and on stacks of matrices."""

    def at_a_leaf(leaf: Leaf, size: int) -> LinearMap | None:
        matrix = matrix_of(leaf)
        if matrix is None:
            return LinearMap(torch.eye(size, dtype=torch.float64, device="cpu"))
        return LinearMap(matrix.detach().to("cpu", torch.float64)) if matrix.dim() == 2 else None

    def summed(maps: Sequence[LinearMap | None]) -> LinearMap | None:
        known = [each for each in maps if each is not None]
        return reduce(LinearMap.plus, known) if len(known) == len(maps) else None

    return carried(
        "linear maps",
        leaf=at_a_leaf,
        onward=lambda f: 0 if f is None else len(f.matrix),
        then=lambda f, g: None if f is None or g is None else f.then(g),
        parallel=lambda _: None,
        total=summed,
        scale=lambda c, f: None if f is None else f.scaled(c),
    )

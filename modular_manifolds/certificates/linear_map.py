"""Linear parts of a network multiplied out: one matrix, and a bound on the error of having computed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from modular_manifolds.composition.fold import Algebra
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps
MatrixOf = Callable[[Leaf], Tensor | None]


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


@dataclass(frozen=True)
class Linearity:
    """Whether a part of a network is a linear map from vectors to vectors whose matrix can be had, and that matrix.

    `matrix(size)` is the one for inputs of `size` features; None on stacks of matrices.
    """

    linear: bool
    matrix: Callable[[int], LinearMap | None]


def matrix_of(leaf: Leaf) -> Tensor | None:
    """The matrix of a linear atom as it is now; None for everything else."""
    return None if leaf.matrix is None else cast("Tensor | None", leaf.matrix())


def nothing(leaf: Leaf) -> None:
    """The matrix of every leaf if none is to be multiplied out."""
    del leaf


def linearity(matrix_of: MatrixOf) -> Algebra[Linearity]:
    """The rules by which linear parts are multiplied out."""

    def leaf(node: Leaf) -> Linearity:
        matrix = matrix_of(node)
        if matrix is None:
            return Linearity(
                node.identity,
                lambda size: LinearMap(torch.eye(size, dtype=torch.float64, device="cpu")),
            )
        own = matrix

        def of_the_leaf(size: int) -> LinearMap | None:
            del size
            return LinearMap(own.detach().to("cpu", torch.float64)) if own.dim() == 2 else None

        return Linearity(True, of_the_leaf)

    def series(parts: Sequence[Linearity]) -> Linearity:
        def product(size: int) -> LinearMap | None:
            whole: LinearMap | None = None
            for part in parts:
                own = part.matrix(size)
                if own is None:
                    return None
                whole = own if whole is None else whole.then(own)
                size = len(own.matrix)
            return whole

        return Linearity(all(part.linear for part in parts), product)

    def total(parts: Sequence[Linearity]) -> Linearity:
        def added(size: int) -> LinearMap | None:
            found = [part.matrix(size) for part in parts]
            maps = [each for each in found if each is not None]
            return reduce(LinearMap.plus, maps) if len(maps) == len(found) else None

        return Linearity(all(part.linear for part in parts), added)

    def scale(factor: float, part: Linearity) -> Linearity:
        def scaled(size: int) -> LinearMap | None:
            own = part.matrix(size)
            return None if own is None else own.scaled(factor)

        return Linearity(part.linear, scaled)

    return Algebra(
        "linear maps",
        leaf,
        series,
        parallel=lambda _: Linearity(False, lambda _: None),
        sum=total,
        scale=scale,
    )

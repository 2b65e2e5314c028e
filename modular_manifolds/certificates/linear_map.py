"""Linear parts of a network multiplied out: one matrix, and a bound on the error of having computed it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from modular_manifolds.composition.space import AnySpace, Space, substitute
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum, Tree
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


def is_linear(tree: Tree, matrix_of: MatrixOf) -> bool:
    """Whether `tree` is a linear map from vectors to vectors whose matrix can be had."""
    match tree:
        case Leaf():
            return tree.identity or matrix_of(tree) is not None
        case Scale():
            return is_linear(tree.part, matrix_of)
        case Series() | Sum():
            return all(is_linear(part, matrix_of) for part in tree.parts)
        case Parallel():
            return False


def multiplied_out(tree: Tree, source: AnySpace, matrix_of: MatrixOf) -> LinearMap | None:
    """The one matrix of a tree for which `is_linear` says yes; None on tuples and on stacks of matrices."""
    if not isinstance(source, Space):
        return None
    match tree:
        case Leaf():
            matrix = matrix_of(tree)
            if matrix is None:
                return LinearMap(torch.eye(source.size, dtype=torch.float64, device="cpu"))
            matrix = matrix.detach().to("cpu", torch.float64)
            return LinearMap(matrix) if matrix.dim() == 2 else None
        case Scale():
            part = multiplied_out(tree.part, source, matrix_of)
            return None if part is None else part.scaled(tree.factor)
        case Series():
            whole: LinearMap | None = None
            for part in tree.parts:
                own = multiplied_out(part, source, matrix_of)
                if own is None:
                    return None
                whole = own if whole is None else whole.then(own)
                source = substitute(part.signature.target, source)
            return whole
        case Sum():
            found = [multiplied_out(part, source, matrix_of) for part in tree.parts]
            maps = [each for each in found if each is not None]
            return reduce(LinearMap.plus, maps) if len(maps) == len(found) else None
        case Parallel():
            return None

"""The interface of a norm on weights: its value, its dual norm and its steepest direction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    as_matrices,
    divide_safely,
    inner,
    restore,
    scale_exactly,
)
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.values import values_of


@dataclass(frozen=True)
class Norm(ABC):
    """A norm on matrices of shape (*batch, m, n); a vector of length n counts as (n, 1).

    A new norm is one file. It sets `source` and `target` and implements the methods that begin with
    `_`, which get matrices in at least float32.

    Every method computes in the precision of its argument (at least float32), whatever autocast and torch's precision
    settings say. Finite arguments give no NaN; a value beyond the range of its dtype is infinite.

    `source` and `target` are the vector norms (`l2`, `rms`, `l1`, `linf`) of input and output of the map
    `x ↦ Wx`, with `‖Wx‖_target ≤ norm_constant(shape) · ‖W‖ · ‖x‖_source`.
    """

    source: ClassVar[Literal["rms", "l2", "l1", "linf"]]
    target: ClassVar[Literal["rms", "l2", "l1", "linf"]]

    coupled_dims: ClassVar[tuple[int, ...]] = MATRIX
    """The dimensions over which an entry of the steepest direction depends on other entries of the gradient: `(-2, -1)`
    the whole matrix, `(-1,)` its row, `()` none. A steepest direction has unit length in each matrix, row or entry."""

    transposes: ClassVar[bool] = False
    """Whether Xᵀ and X have the same norm for every X."""

    accuracy: ClassVar[float] = 0.0
    """The largest distance of the length of `steepest` from one. Its descent falls short of the dual by about as much,
    and by more if singular values below the floor of `msign` carry much of the dual."""

    def value(self, x: Tensor) -> Tensor:
        """`‖X‖`, shape (*batch), in at least float32."""
        matrices = self._matrices(x, "value(x)")
        with full_precision(x.device.type):
            return self._value(matrices).squeeze(-1).squeeze(-1)

    def dual(self, x: Tensor) -> Tensor:
        """`max <X, A>` over `‖A‖ ≤ 1`, shape (*batch), in at least float32."""
        matrices = self._matrices(x, "dual(x)")
        with full_precision(x.device.type):
            return self._dual(matrices).squeeze(-1).squeeze(-1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """`argmin <G, A>` over `‖A‖ ≤ 1`: unit length, `<G, A> = −dual(G)`; zero for a zero gradient."""
        matrices = self._matrices(gradient, "steepest(gradient)")
        with full_precision(gradient.device.type):
            return restore(self._steepest(matrices), gradient)

    def shortfall(self, gradient: Tensor, direction: Tensor) -> Tensor:
        """The relative gap `1 + <G, A>/dual(G)` of `A = steepest(G)`, or a bound on it, shape (*batch).

        Zero if the norm's direction is exact, and for a zero gradient; NaN if the direction holds NaN.
        """
        if self.accuracy == 0.0:
            # Zero, or NaN if the direction holds NaN. Its entries are too small for the sum to overflow.
            return direction.sum(dim=MATRIX) * 0
        matrices = scale_exactly(self._matrices(gradient, "shortfall(gradient)"))
        with full_precision(gradient.device.type):
            dual = self._dual(matrices)
            descent = -inner(matrices, self._matrices(direction, "shortfall(direction)"))
            return divide_safely(dual - descent, dual).clamp(0, 1).squeeze(-1).squeeze(-1)

    def steepest_by(self, shape: tuple[int, ...], device_type: str) -> str:
        """The method of `steepest` for matrices of this shape (*batch, m, n), as the end of a sentence."""
        del shape, device_type
        return "by its formula"

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        """The largest spectral norm of a matrix of this shape (*batch, m, n) with norm 1; infinite by default.

        A step of length η in this norm has a spectral norm of at most `η · spectral_unit(shape)`.
        """
        del shape
        return math.inf

    def norm_constant(self, shape: tuple[int, int]) -> float:
        """The κ of `‖Wx‖_target ≤ κ ‖W‖ ‖x‖_source` for W of `shape` (out, in); 1 by default."""
        del shape
        return 1.0

    def values(self) -> dict[str, Any]:
        """The norm as a JSON object, such as `{"name": "spectral"}`."""
        return values_of(self)

    def _matrices(self, x: Tensor, argument: str) -> Tensor:
        try:
            return as_matrices(x, argument=argument)
        except ArgumentError as error:
            # Formatting the name takes as long as a small product, so it is done only for an error.
            raise type(error)(f"{self}.{argument}", error.rule, error.seen, error.remedy) from None

    @abstractmethod
    def _value(self, x: Tensor) -> Tensor: ...  # shape: (*batch, 1, 1)

    @abstractmethod
    def _dual(self, x: Tensor) -> Tensor: ...  # shape: (*batch, 1, 1)

    @abstractmethod
    def _steepest(self, g: Tensor) -> Tensor: ...  # shape: (*batch, m, n)

    def __str__(self) -> str:
        return type(self).__name__

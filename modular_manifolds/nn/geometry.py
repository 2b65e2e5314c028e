"""The geometry of a weight: its manifold, and the norm of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.composition.space import VectorNorm, conversion
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.selection import find_solver


@dataclass(frozen=True)
class Geometry:
    """A manifold and a norm with a solver for the pair.

    Raises:
        UnsupportedPairError: no solver is known for the pair; the message lists those that are.
    """

    manifold: Manifold
    norm: Norm

    def __post_init__(self) -> None:
        for field, value, kind in (
            ("manifold", self.manifold, Manifold),
            ("norm", self.norm, Norm),
        ):
            if not isinstance(value, kind):
                raise ArgumentError(
                    field,
                    f"must be a {kind.__name__}",
                    repr(value),
                    f"Pass an instance such as {'Stiefel()' if kind is Manifold else 'Spectral()'}.",
                )
        find_solver(self.manifold, self.norm)

    @property
    def coupled_dims(self) -> tuple[int, ...]:
        """The dimensions of one unit of the weight; each unit is stepped independently at full length.

        `(-2, -1)`: each matrix. `(-1,)`: each row, as in an embedding. `()`: each entry, as in sign descent.
        """
        return max(self.manifold.coupled_dims, self.norm.coupled_dims, key=len)

    @property
    def transposes(self) -> bool:
        """Whether stepping the transpose of a weight gives the same step."""
        return self.manifold.transposes and self.norm.transposes

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """A random starting point; on an unbounded manifold it has unit norm, for which sensitivities hold."""
        if self.manifold.compact:
            return self.manifold.random(shape, dtype=dtype)
        dtype = dtype or torch.get_default_dtype()
        noise = torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32))
        direction = -self.norm.steepest(noise)
        # A steepest direction has unit length only to the norm's accuracy; the starting point has it exactly.
        length = self.norm.value(direction)
        unit = direction / length.reshape(length.shape + (1,) * (direction.dim() - length.dim()))
        return self.manifold.project(unit).to(dtype)

    def operator_bound(
        self, shape: tuple[int, int], source: VectorNorm, target: VectorNorm
    ) -> float:
        """A bound on `‖Wx‖_target/‖x‖_source` over the whole manifold; infinite if there is none."""
        return self.manifold.largest_singular_value(shape) * through_l2(shape, source, target)

    def norm_constant(
        self, shape: tuple[int, int], source: VectorNorm, target: VectorNorm
    ) -> float:
        """κ with `‖ΔW x‖_target ≤ κ ‖ΔW‖ ‖x‖_source`, by conversion to the source and target of `norm`."""
        out_features, in_features = shape
        return (
            self.norm.norm_constant(shape)
            * conversion(source, self.norm.source, in_features)
            * conversion(self.norm.target, target, out_features)
        )


def through_l2(shape: tuple[int, int], source: VectorNorm, target: VectorNorm) -> float:
    """c with `‖W‖_{source→target} ≤ c ‖W‖₂` for W of `shape` (out, in)."""
    out_features, in_features = shape
    return conversion(source, "l2", in_features) * conversion("l2", target, out_features)

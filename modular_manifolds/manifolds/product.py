"""The product manifold: a point is a mapping from weight names to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class Product:
    """A product of manifolds over named weights; each method works weight by weight on mappings with the same names.

    Args:
        manifolds: the manifold of each weight, by path.
    """

    manifolds: Mapping[str, Manifold]

    def check_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a shape in which the manifold of the weight has no points."""
        self._check(shapes, "check_shape(shapes)")
        for name, shape in shapes.items():
            self.manifolds[name].check_shape(shape, argument=name)

    def random(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, Tensor]:
        """A random point."""
        self._check(shapes, "random(shapes)")
        return {
            name: self.manifolds[name].random(
                shape, generator=generator, dtype=dtype, device=device
            )
            for name, shape in shapes.items()
        }

    def project(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The nearest point."""
        self._check(x, "project(x)")
        return {name: self.manifolds[name].project(w) for name, w in x.items()}

    def tangent(
        self, point: Mapping[str, Tensor], vector: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The orthogonal projection of `vector` to the tangent space at `point`."""
        self._check(point, "tangent(point)")
        self._check(vector, "tangent(vector)")
        return {name: self.manifolds[name].tangent(w, vector[name]) for name, w in point.items()}

    def retract(self, point: Mapping[str, Tensor], step: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A point that equals `point + step` to first order in a tangent `step`."""
        self._check(point, "retract(point)")
        self._check(step, "retract(step)")
        return {name: self.manifolds[name].retract(w, step[name]) for name, w in point.items()}

    def residual(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The distance of each weight from its manifold, relative to the radius."""
        self._check(point, "residual(point)")
        return {name: self.manifolds[name].residual(w) for name, w in point.items()}

    def _check(self, names: Mapping[str, object], argument: str) -> None:
        if set(names) != set(self.manifolds):
            raise ArgumentError(
                f"Product.{argument}",
                f"must name exactly {', '.join(self.manifolds) or 'no weight'}",
                ", ".join(names) or "no weight",
                "Pass dict(net.named_parameters()) or a mapping with the same names.",
            )

    def __str__(self) -> str:
        return " × ".join(f"{name}: {manifold}" for name, manifold in self.manifolds.items())

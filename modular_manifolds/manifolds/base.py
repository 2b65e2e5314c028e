"""The interface of a manifold: its shapes, the nearest point, tangent steps, retraction and residual."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from modular_manifolds.arguments import POSITIVE, check_number
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    as_matrices,
    compiled_on_host,
    restore,
    scale_unless_in_range,
)
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.manifolds.on_host import as_operator
from modular_manifolds.values import values_of


@dataclass(frozen=True)
class Manifold(ABC):
    """A set of matrices of shape (*batch, m, n); a vector of length n counts as (n, 1).

    A new manifold is one file. It implements the methods that begin with `_`, which get matrices in at least float32. A
    manifold knows only the Euclidean norm; solvers find the steepest direction.

    Every method computes in the precision of its arguments (at least float32), whatever autocast and torch's precision
    settings say. Finite arguments give no NaN, and a result has memory of its own. Points must be on the manifold. For
    a point off it, the tangent space is that of a point close to it, and a retraction still lands on the manifold.
    """

    compact: ClassVar[bool] = True
    """Whether the manifold is bounded."""

    fixed_size: ClassVar[bool] = True
    """Whether weight decay is normal to the manifold and has no effect, as if all points have one length."""

    coupled_dims: ClassVar[tuple[int, ...]] = MATRIX
    """The dimensions over which the constraint couples entries: `(-2, -1)` the whole matrix, `(-1,)` each row
    by itself, `()` no two entries."""

    transposes: ClassVar[bool] = False
    """Whether the manifold holds Wᵀ if it holds W, with the transposed tangents and retractions."""

    has_boundary: ClassVar[bool] = False
    """Whether steps may end outside and are projected back. Retractions are then first-order only in the interior."""

    decides_on_host: ClassVar[bool] = False
    """Whether tangents and retractions of CPU tensors read their numbers, for example for a decomposition. Each of
    them is then one operator of a compiled graph, with the same result as in eager mode."""

    def __post_init__(self) -> None:
        radius = getattr(self, "radius", None)
        if radius is not None:
            argument = f"{type(self).__name__}(radius)"
            remedy = "Pass the size of the manifold's points, 1.0 by default."
            radius = check_number(radius, POSITIVE, argument=argument, remedy=remedy)
            object.__setattr__(self, "radius", radius)

    def check_shape(self, shape: Sequence[int], *, argument: str = "shape") -> None:
        """Refuse a shape in which this manifold has no points."""
        if len(shape) == 0 or any(size < 1 for size in shape):
            raise ShapeError(
                argument,
                f"must be (n,) or (*batch, m, n) without empty dimensions for {self}",
                tuple(shape),
                "Pass the shape of a vector or a matrix.",
            )

    def random(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A random point; its distribution is invariant under the manifold's rotations, if it has any."""
        self.check_shape(shape)
        dtype = dtype or torch.get_default_dtype()
        wide_enough = torch.promote_types(dtype, torch.float32)
        noise = torch.randn(tuple(shape), generator=generator, dtype=wide_enough, device=device)
        with full_precision(noise.device.type):
            return restore(self._from_noise(as_matrices(noise, argument="random")), noise).to(dtype)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the manifold in Euclidean distance (one of them if there are several)."""
        matrices = self._matrices(x, "project(x)")
        with full_precision(x.device.type):
            return restore(self._project(matrices), x)

    def tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        """The orthogonal projection of `vector` to the tangent space at `point`."""
        w, v = self._matrices(point, "tangent(point)"), self._matrices(vector, "tangent(vector)")
        self._same_shape(point, vector, "tangent(vector)")
        if self.decides_on_host and compiled_on_host(point):
            return as_operator(self, point, vector, "tangent")
        with full_precision(point.device.type):
            v, scale = scale_unless_in_range(v)
            tangent = self._tangent(w, v)
            return restore(tangent if scale is None else tangent / scale, vector)

    def unit_normal(self, point: Tensor, *, by_products: bool = False) -> Tensor:
        """N of unit Frobenius length, so that A is tangent at `point` if and only if `<N, A> = 0`.

        Args:
            point: W, shape (*batch, m, n) or (n,).
            by_products: use matrix products only and read no number on the host, as an accelerator needs.

        Raises:
            ArgumentError: the normal space of the manifold has more than one dimension.
        """
        w = self._matrices(point, "unit_normal(point)")
        with full_precision(point.device.type):
            return restore(self._unit_normal(w, by_products=by_products), point)

    def retract(self, point: Tensor, step: Tensor, *, length: float | None = None) -> Tensor:
        """A point on the manifold that equals `point + step` to first order in a tangent `step`.

        Args:
            point: W, shape (*batch, m, n) or (n,).
            step: A, the same shape.
            length: a bound on the spectral norm of every matrix of the step, in its coordinates, if the caller knows one.
                The number of operations then follows from the bound, and the step need not be read on the host.
        """
        w, a = self._matrices(point, "retract(point)"), self._matrices(step, "retract(step)")
        self._same_shape(point, step, "retract(step)")
        if self.decides_on_host and compiled_on_host(point):
            return as_operator(self, point, step, "retract")
        with full_precision(point.device.type):
            landed = self._retract(w, a) if length is None else self._retract_within(w, a, length)
            return restore(landed, point)

    def leaf(self, point: Tensor) -> Manifold:
        """The manifold on which steps from `point` stay: the whole manifold, unless it is a family of smaller ones."""
        del point
        return self

    def coordinates(self, point: Tensor, step: Tensor) -> Tensor:
        """The step in the coordinates in which norms measure it: the step itself, unless the manifold says otherwise."""
        w, a = (
            self._matrices(point, "coordinates(point)"),
            self._matrices(step, "coordinates(step)"),
        )
        self._same_shape(point, step, "coordinates(step)")
        with full_precision(point.device.type):
            return restore(self._coordinates(w, a), step)

    def gradient_coordinates(self, point: Tensor, gradient: Tensor) -> Tensor:
        """The gradient in those coordinates: its inner product with the coordinates of a tangent step A is `<G, A>`."""
        w = self._matrices(point, "gradient_coordinates(point)")
        g = self._matrices(gradient, "gradient_coordinates(gradient)")
        self._same_shape(point, gradient, "gradient_coordinates(gradient)")
        with full_precision(point.device.type):
            return restore(self._gradient_coordinates(w, g), gradient)

    def residual(self, point: Tensor) -> Tensor:
        """The distance of `point` from the manifold, relative to its radius, shape (*batch); 0 for a point on it."""
        matrices = self._matrices(point, "residual(point)")
        with full_precision(point.device.type):
            return self._residual(matrices)

    def largest_singular_value(self, shape: Sequence[int]) -> float:
        """A bound on `σ_max` that holds at every point of this shape; infinite if there is none."""
        self.check_shape(shape)
        return self._largest_singular_value(_matrix_shape(shape))

    def largest_row_norm(self, shape: Sequence[int]) -> float:
        """A bound on the l2 norm of every row at every point of this shape; infinite if there is none."""
        self.check_shape(shape)
        return self._largest_row_norm(_matrix_shape(shape))

    def scaled(self, factor: float) -> Manifold:
        """The manifold of all points times `factor`. A radius is multiplied by it.

        Raises:
            ArgumentError: `factor` is not finite and positive, or the manifold has neither a radius
                nor its own `_scaled`.
        """
        argument = f"{type(self).__name__}.scaled(factor)"
        remedy = "Pass a positive factor such as math.sqrt(out / in)."
        return self._scaled(check_number(factor, POSITIVE, argument=argument, remedy=remedy))

    def values(self) -> dict[str, Any]:
        """The manifold as a JSON object, such as `{"name": "stiefel", "radius": 1.0}`."""
        return values_of(self)

    def _from_noise(self, noise: Tensor) -> Tensor:
        """A random point, from independent standard normal entries."""
        return self._project(noise)

    @abstractmethod
    def _project(self, x: Tensor) -> Tensor: ...  # shape: (*batch, m, n)

    @abstractmethod
    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor: ...  # shape: (*batch, m, n)

    def _unit_normal(self, point: Tensor, *, by_products: bool) -> Tensor:  # shape: (*batch, m, n)
        del point, by_products
        raise ArgumentError(
            f"{type(self).__name__}.unit_normal(point)",
            "needs a manifold with one normal at every point",
            self,
            "Choose Sphere() or SpectralSphere(), or write its _unit_normal(point, by_products=...).",
        )

    @abstractmethod
    def _retract(self, point: Tensor, step: Tensor) -> Tensor: ...  # shape: (*batch, m, n)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        """`_retract` of a step of at most this spectral norm. Override it if the bound saves work."""
        del length
        return self._retract(point, step)

    def _coordinates(self, point: Tensor, step: Tensor) -> Tensor:  # shape: (*batch, m, n)
        del point
        return step

    def _gradient_coordinates(self, point: Tensor, gradient: Tensor) -> Tensor:
        del point
        return gradient

    @abstractmethod
    def _residual(self, point: Tensor) -> Tensor: ...  # shape: (*batch,)

    @abstractmethod
    def _largest_singular_value(self, shape: tuple[int, int]) -> float: ...

    def _scaled(self, factor: float) -> Manifold:
        radius: float | None = getattr(self, "radius", None)
        if radius is None:
            raise ArgumentError(
                f"{type(self).__name__}.scaled(factor)",
                "needs a manifold with a radius",
                "none",
                "Write its _scaled(factor), or choose a manifold with a radius such as Stiefel().",
            )
        changed: dict[str, Any] = {"radius": radius * factor}
        return replace(self, **changed)

    def _largest_row_norm(self, shape: tuple[int, int]) -> float:
        # ‖Wᵀe‖₂ ≤ ‖W‖₂ for every unit vector e.
        return self._largest_singular_value(shape)

    def _matrices(self, x: Tensor, argument: str) -> Tensor:
        try:
            matrices = as_matrices(x, argument=argument)
            self.check_shape(x.shape)
        except ArgumentError as error:
            # Formatting the name takes as long as a small product, so it is done only for an error.
            qualified = f"{self}.{argument}"
            raise type(error)(qualified, error.rule, error.seen, error.remedy) from None
        radius = getattr(self, "radius", 1.0)
        if radius != 1.0:
            self._check_range(radius, x.dtype)
        return matrices

    def _check_range(self, radius: float, dtype: torch.dtype) -> None:
        numbers = torch.finfo(dtype)
        if not numbers.tiny <= radius <= numbers.max:
            raise ArgumentError(
                f"{type(self).__name__}(radius)",
                f"must be a normal number of {dtype}, from {numbers.tiny:.2g} to {numbers.max:.2g}",
                repr(radius),
                "Keep the weight in a wider dtype, or choose another radius.",
            )

    def _same_shape(self, point: Tensor, vector: Tensor, argument: str) -> None:
        if point.shape != vector.shape:
            raise ShapeError(
                f"{self}.{argument}",
                f"must have the shape of the point, {tuple(point.shape)}",
                tuple(vector.shape),
                "Pass one vector for each point.",
            )

    def __str__(self) -> str:
        radius = getattr(self, "radius", 1.0)
        return type(self).__name__ + (f"(radius={radius:.4g})" if radius != 1.0 else "")


def _matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[-2], shape[-1]) if len(shape) > 1 else (shape[0], 1)

"""The elementary modules: atoms, which have a weight, and bonds, which have none.

The `radius` of a bound is a `Radius` for modules on tuples and a float for modules on vectors. Its type is Any here,
because a subclass may not narrow the type of an argument from `Radius` to float.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modular_manifolds.composition.leaf import Kind, Leaf
from modular_manifolds.composition.signature import Signature, check_mass, check_slopes
from modular_manifolds.composition.space import SAME, AnySpace
from modular_manifolds.composition.tree import Tree
from modular_manifolds.linalg.rounding import largest_singular_value
from modular_manifolds.nn.entries import check_entries, entries_of
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.module import Module
from modular_manifolds.nn.sharing import joined
from modular_manifolds.nn.tracing import has_values, makes_values


class Atom(Module):
    """A module with one weight that has a manifold and a norm.

    To write an atom, call `super().__init__` with the geometry and the numbers, and implement `forward` and `describe`.

    Args:
        geometry: manifold and norm of the weight.
        shape: the weight's shape.
        source: the spaces.
        target: as `source`.
        sensitivity: a Lipschitz bound in the input for weights in their unit ball. It may be infinite (no bound) only
            if there is a rate scale.
        lipschitz: a Lipschitz bound at every point of the manifold; may be infinite.
        norm_constant: κ with `‖∂f/∂w · Δw‖ ≤ κ ‖Δw‖` on unit inputs.
        mass: the share of the learning; 0 freezes the weight.
        offset: a bound on `‖f(0)‖`.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        leading: example sizes of the dimensions between batch and features, for trial inputs. Only a module that mixes
            the vectors of one input has them, as attention mixes positions.
        rate_scale: the slope that the budget divides the learning rate by, if it is not the sensitivity.
    """

    _kind: ClassVar[Kind] = ""

    def __init__(
        self,
        *,
        geometry: Geometry,
        shape: tuple[int, ...],
        source: AnySpace,
        target: AnySpace,
        sensitivity: float,
        lipschitz: float,
        norm_constant: float = 1.0,
        mass: float = 1.0,
        offset: float = 0.0,
        largest: float = math.inf,
        leading: tuple[int, ...] = (),
        rate_scale: float | None = None,
    ) -> None:
        super().__init__()
        mass = check_mass(mass, argument=f"{type(self).__name__}(mass)")
        slopes = check_slopes(sensitivity, rate_scale, owner=type(self).__name__)
        geometry.manifold.check_shape(shape, argument=f"{type(self).__name__} weight")
        self._geometry = geometry
        self._own = Signature(mass, slopes[0], source, target, rate_scale=slopes[1])
        self._lipschitz = float(lipschitz)
        self._norm_constant = float(norm_constant)
        self._offset = float(offset)
        self._largest = float(largest)
        self._leading = leading
        check_entries(shape, argument=f"{type(self).__name__} weight")
        self.weight: nn.Parameter = nn.Parameter(self._initial_weight(shape))

    @property
    def geometry(self) -> Geometry:
        """Manifold and norm of the weight."""
        return self._geometry

    @abstractmethod
    def describe(self) -> str:
        """The module's name in tables, such as `Linear(64, 10)`."""

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """The initial weight: by default a random point of the manifold."""
        return self._geometry.initial(shape, dtype)

    def certified(self) -> float | None:
        """A Lipschitz bound for the current weight, in float64 and rounded up.

        None, the default, if `lipschitz_at(σ_max)` is the best bound.
        """
        return None

    def certified_offset(self) -> float:
        """A bound on `‖f(0)‖` for the current weight, rounded up; the declared offset by default."""
        return self._offset

    def lipschitz_at(self, largest_singular_value: float) -> float:
        """A Lipschitz bound for any weight with at most this `σ_max`; the declared bound by default."""
        del largest_singular_value
        return self._lipschitz

    def lipschitz_within(
        self, radius: Any, *, largest_singular_value: float | None = None
    ) -> float:
        """A Lipschitz bound for inputs of norm at most `radius`, which may be infinite.

        It holds on the whole manifold, or for any weight with at most the given `σ_max`. By default it does not
        depend on the radius.
        """
        del radius
        if largest_singular_value is None:
            return self._lipschitz
        return self.lipschitz_at(largest_singular_value)

    def matrix(self) -> Tensor | None:
        """W with `f(x) = W x` for every x, in the weight's dtype; None, the default, if f is not linear."""
        return None

    def rounding_within(self, radius: Any, dtype: torch.dtype) -> float:
        """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, where f̂ is f as torch computes it in `dtype`.

        Underflow is not included. By default there is no bound and the result is infinite.
        """
        del radius, dtype
        return math.inf

    def tree(self, path: str = "") -> Tree:
        return Leaf(
            path=path,
            label=self.describe(),
            signature=self._own,
            lipschitz=self._lipschitz,
            offset=self._offset,
            weight=joined(path, "weight"),
            manifold=str(self._geometry.manifold),
            norm=str(self._geometry.norm),
            norm_constant=self._norm_constant,
            within=self.lipschitz_within,
            kind=self._kind,
            largest=self._largest,
            leading=self._leading,
            entries=entries_of(self),
            certified=_certified(self),
            certified_offset=self.certified_offset,
            matrix=self.matrix,
            rounding=self.rounding_within,
            forward=self,
        )

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        yield joined(path, "weight"), self._geometry

    def arguments(self) -> dict[str, object]:
        # The attribute `manifold` of an atom is the product over its weights, as of any module.
        geometry = {"manifold": self._geometry.manifold, "norm": self._geometry.norm}
        names = inspect.signature(type(self)).parameters
        return {name: geometry.get(name) or getattr(self, name) for name in names}

    def reset_parameters(self) -> None:
        weight = self.weight
        if not has_values(weight):
            return
        # Under `torch.device("meta")` a weight with values is initialised on its own device.
        with nullcontext() if makes_values() else torch.device(weight.device):
            weight.data.copy_(self.initial(tuple(weight.shape), weight.dtype))

    def _initial_weight(self, shape: tuple[int, ...]) -> Tensor:
        """The initial weight; on the meta device an empty tensor."""
        return self.initial(shape).contiguous() if makes_values() else torch.empty(shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The module's function."""

    def extra_repr(self) -> str:
        return f"{self._geometry.manifold} × {self._geometry.norm}, mass={self._own.mass:g}"


def _certified(atom: Atom) -> Callable[[Any], float]:
    """The slope bound for an atom's current weight; each number is computed once, at its first use."""
    certified_bound = cache(atom.certified)
    largest = cache(lambda: largest_singular_value(atom.weight))

    def slope(radius: Any) -> float:
        bound = certified_bound()
        if bound is not None:
            return bound
        return atom.lipschitz_within(radius, largest_singular_value=largest())

    return slope


class Bond(Module):
    """A module without a weight.

    To write a bond, state a Lipschitz bound with its proof, and implement `forward`. A bond that changes the space
    passes `source` and `target`.

    Args:
        sensitivity: a Lipschitz bound for inputs in the unit ball, in every norm that the module accepts. It may be
            infinite (no bound) only if there is a rate scale.
        source: the space of inputs; None for any space.
        target: the space of outputs; SAME for the space of the input.
        offset: a bound on `‖f(0)‖`.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        leading: example sizes of the dimensions between batch and features, for trial inputs. Only a module that mixes
            the vectors of one input has them, as attention mixes positions.
        rate_scale: the slope that the budget divides the learning rate by, if it is not the sensitivity. It is a
            typical slope, not a bound.
    """

    _kind: ClassVar[Kind] = ""

    def __init__(
        self,
        *,
        sensitivity: float = 1.0,
        source: AnySpace | None = None,
        target: AnySpace = SAME,
        offset: float = 0.0,
        largest: float = math.inf,
        leading: tuple[int, ...] = (),
        rate_scale: float | None = None,
    ) -> None:
        super().__init__()
        slopes = check_slopes(sensitivity, rate_scale, owner=type(self).__name__)
        self._own = Signature(0.0, slopes[0], source, target, rate_scale=slopes[1])
        self._offset = float(offset)
        self._largest = float(largest)
        self._leading = leading

    @property
    def maps_parts(self) -> bool:
        return self._own.source is None

    def lipschitz_within(self, radius: Any) -> float:
        """A Lipschitz bound for inputs of norm at most `radius`, which may be infinite.

        It is the sensitivity by default. Override it for a bound that grows with the input; the sensitivity must then
        be this bound at radius 1. A bond on tuples gets a tuple of radii, one for each part, or one number if only a
        bound on their sum is known.
        """
        del radius
        return self._own.sensitivity

    def output_within(self, radius: Any) -> float:
        """A bound on `‖f(x)‖` for `‖x‖ ≤ radius`, apart from the one by the slope; `largest` by default."""
        del radius
        return self._largest

    def rounding_within(self, radius: Any, dtype: torch.dtype) -> float:
        """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, where f̂ is f as torch computes it in `dtype`.

        Underflow is not included. By default there is no bound and the result is infinite.
        """
        del radius, dtype
        return math.inf

    def tree(self, path: str = "") -> Tree:
        return Leaf(
            path,
            type(self).__name__,
            self._own,
            lipschitz=self.lipschitz_within(math.inf),
            offset=self._offset,
            within=self.lipschitz_within,
            kind=self._kind,
            largest=self._largest,
            output_within=self.output_within,
            leading=self._leading,
            entries=entries_of(self),
            rounding=self.rounding_within,
            forward=self,
        )

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        del path
        return iter(())

    def arguments(self) -> dict[str, object]:
        # The class of a bond without its own constructor fixes all numbers.
        return {} if type(self).__init__ is Bond.__init__ else super().arguments()

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """The module's function."""

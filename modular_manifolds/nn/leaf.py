"""The modules that others are made of: atoms, which have a weight, and bonds, which have none.

The `radius` of their bounds is a `Radius` for a module that takes tuples and a float for one that takes vectors. It is Any
here, because a subclass may widen the type of an argument and never narrow it: below a `Radius` none could write float.
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
from modular_manifolds.nn.tracing import has_values


class Atom(Module):
    """A module with one weight on a manifold, measured by a norm.

    To write one: call `super().__init__` with the geometry and the numbers, and write `forward` and `describe`.

    Args:
        geometry: manifold and norm of the weight.
        shape: the weight's shape.
        source: the spaces.
        target: the spaces.
        sensitivity: a Lipschitz bound in the input for weights in their unit ball. Infinite, if there is none,
            only together with a rate scale.
        lipschitz: a Lipschitz bound at every point of the manifold; may be infinite.
        norm_constant: κ with `‖∂f/∂w · Δw‖ ≤ κ ‖Δw‖` on unit inputs.
        mass: the share of the learning; 0 freezes the weight.
        offset: a bound on `‖f(0)‖`.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        leading: for a module that mixes the vectors of one input, as attention mixes positions: sizes of the
            dimensions between batch and features to draw a trial input with.
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
        slopes = check_slopes(sensitivity, rate_scale, of=type(self).__name__)
        geometry.manifold.check_shape(shape, argument=f"{type(self).__name__} weight")
        self._geometry = geometry
        self._own = Signature(mass, slopes[0], source, target, rate_scale=slopes[1])
        self._lipschitz = float(lipschitz)
        self._norm_constant = float(norm_constant)
        self._offset = float(offset)
        self._largest = float(largest)
        self._leading = leading
        check_entries(shape, argument=f"{type(self).__name__} weight")
        self.weight: nn.Parameter = nn.Parameter(self._drawn(shape))

    @property
    def geometry(self) -> Geometry:
        """Manifold and norm of the weight."""
        return self._geometry

    @abstractmethod
    def describe(self) -> str:
        """How the module reads in tables, such as `Linear(64, 10)`."""

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """The weight to start from: a random point of the manifold, unless the atom has a better one."""
        return self._geometry.initial(shape, dtype)

    def certified(self) -> float | None:
        """A Lipschitz bound for the weight as it is, in float64 and rounded up.

        None, the default, if `lipschitz_at` its `σ_max` says all that is known.
        """
        return None

    def certified_offset(self) -> float:
        """A bound on `‖f(0)‖` for the weight as it is, rounded up; the declared one by default."""
        return self._offset

    def lipschitz_at(self, largest_singular_value: float) -> float:
        """A Lipschitz bound for any weight whose `σ_max` is at most this; the declared one by default."""
        del largest_singular_value
        return self._lipschitz

    def lipschitz_within(
        self, radius: Any, *, largest_singular_value: float | None = None
    ) -> float:
        """A Lipschitz bound for inputs of norm at most `radius`, which may be infinite.

        On the whole manifold, or for any weight whose `σ_max` is at most what is given. The constants
        without the radius by default.
        """
        del radius
        if largest_singular_value is None:
            return self._lipschitz
        return self.lipschitz_at(largest_singular_value)

    def matrix(self) -> Tensor | None:
        """W with `f(x) = W x` for every x, in the weight's dtype; None, the default, if f is not linear."""
        return None

    def rounding_within(self, radius: Any, dtype: torch.dtype) -> float:
        """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, f̂ being f as torch computes it in `dtype`.

        Underflow is not counted here. Infinite by default: nothing is known.
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
        # Under `torch.device("meta")` a weight with values is drawn on its own device.
        with nullcontext() if _makes_values() else torch.device(weight.device):
            weight.data.copy_(self.initial(tuple(weight.shape), weight.dtype))

    def _drawn(self, shape: tuple[int, ...]) -> Tensor:
        """The weight to start from; on the meta device an empty one, which costs no computation."""
        return self.initial(shape).contiguous() if _makes_values() else torch.empty(shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The module's function."""

    def extra_repr(self) -> str:
        return f"{self._geometry.manifold} × {self._geometry.norm}, mass={self._own.mass:g}"


def _certified(atom: Atom) -> Callable[[Any], float]:
    """The slope bound of an atom's weight as it is; each number is computed when it is first asked for, and once."""
    own = cache(atom.certified)
    largest = cache(lambda: largest_singular_value(atom.weight))

    def slope(radius: Any) -> float:
        known = own()
        if known is not None:
            return known
        return atom.lipschitz_within(radius, largest_singular_value=largest())

    return slope


def _makes_values() -> bool:
    """Whether tensors that are made here and now have values."""
    return has_values(torch.empty(0))


class Bond(Module):
    """A module without a weight.

    To write one: state a Lipschitz bound with its reason, and write `forward`. A bond that keeps the
    space it is given needs no more; one that does not passes `source` and `target`.

    Args:
        sensitivity: a Lipschitz bound for inputs in the unit ball, in every norm that the module accepts. Infinite,
            if there is none, only together with a rate scale.
        source: the space it takes; None for any.
        target: the space it gives; SAME for the one that came in.
        offset: a bound on `‖f(0)‖`.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        leading: for a module that mixes the vectors of one input, as attention mixes positions: sizes of the
            dimensions between batch and features to draw a trial input with.
        rate_scale: the slope that the budget divides the learning rate by, if it is not the sensitivity: one that
            inputs typically meet. It bounds nothing.
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
        slopes = check_slopes(sensitivity, rate_scale, of=type(self).__name__)
        self._own = Signature(0.0, slopes[0], source, target, rate_scale=slopes[1])
        self._offset = float(offset)
        self._largest = float(largest)
        self._leading = leading

    @property
    def maps_parts(self) -> bool:
        return self._own.source is None

    def lipschitz_within(self, radius: Any) -> float:
        """A Lipschitz bound for inputs of norm at most `radius`, which may be infinite.

        The sensitivity by default. A bond whose bound grows with its input overrides this; its
        sensitivity is then this bound at radius 1. A bond that takes a tuple is given a tuple of radii, one
        for each part, or one number if only the sum is known.
        """
        del radius
        return self._own.sensitivity

    def output_within(self, radius: Any) -> float:
        """A bound on `‖f(x)‖` for `‖x‖ ≤ radius` that the Lipschitz bound does not give; `largest` by default."""
        del radius
        return self._largest

    def rounding_within(self, radius: Any, dtype: torch.dtype) -> float:
        """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, f̂ being f as torch computes it in `dtype`.

        Underflow is not counted here. Infinite by default: nothing is known.
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
        # A bond without a constructor of its own has its numbers fixed by its class.
        return {} if type(self).__init__ is Bond.__init__ else super().arguments()

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """The module's function."""

"""A leaf of the tree: the properties of one atom or bond that reports use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.composition.radius import Radius, plus, times, total
from modular_manifolds.composition.signature import Signature, check_sensitivity
from modular_manifolds.composition.space import SAME
from modular_manifolds.errors import ArgumentError

SlopeWithin = Callable[[Radius], float]
"""A slope bound for inputs of norm at most a radius."""
Kind = Literal["", "identity", "relu", "flatten", "lookup"]
"""The functions that reports recognise: x, max(x, 0), the flattened x, and the row of a token."""


@dataclass(frozen=True)
class Leaf:
    """An atom (with a weight) or a bond (without): all data that a report needs, so that no report needs the module.

    The callables refer to the live module: a certified bound holds for the weight's value at the first call.

    Args:
        path: the module's path in the network, in PyTorch's dotted names.
        label: the module's name in tables, such as `Linear(64, 10)`.
        signature: mass, sensitivity, rate scale and spaces.
        lipschitz: the slope bound that holds at *every* point of the weight's manifold, for inputs of any size;
            infinite if there is none.
        offset: a bound on `‖f(0)‖`, 0 for a module that maps zero to zero.
        weight: the weight's path; None for a bond.
        manifold: the names of the weight's geometry in tables.
        norm: as `manifold`.
        norm_constant: κ with `‖∂f/∂w · Δw‖ ≤ κ ‖Δw‖` on unit inputs; 1 for a well-normed atom.
        within: the slope bound for inputs of norm at most r, as a function of r; None if it is `lipschitz` for every
            r. It is ignored when trees are compared: `lipschitz` is its value at infinity.
        kind: the module's function, if reports recognise it.
        additive: whether the weight is added to the input. A step of the weight then moves the output by the same
            amount at every input, also at inputs smaller than 1.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        output_within: a bound on `‖f(x)‖` for inputs of norm at most r, as a function of r, if the slope alone does not
            give it; None if it is `largest` for every r. It is ignored when trees are compared.
        leading: example sizes of the dimensions between batch and features. Only a module that mixes the vectors of
            one input has them, as attention mixes positions. The norm of an input is the largest over them.
        entries: the number of entries of the module's weight.
        certified: the slope bound for the current weight and inputs of norm at most r, as a function of r; None if
            it is the bound on the manifold.
        certified_offset: the bound on `‖f(0)‖` for the current weight; None if it is `offset`.
        matrix: returns W of shape (out, in) with `f(x) = W x` for every x; it is None, or returns None, if the module
            is not linear.
        rounding: a bound on `‖f̂(x) − f(x)‖` as a function of the bound on `‖x‖` and the dtype in which f̂ is
            computed, without underflow; None if there is no bound.
        forward: the module's function; None if the network cannot be computed leaf by leaf.
    """

    path: str
    label: str
    signature: Signature
    lipschitz: float
    offset: float = 0.0
    weight: str | None = None
    manifold: str = ""
    norm: str = ""
    norm_constant: float = 1.0
    within: Callable[[Radius], float] | None = field(default=None, compare=False, repr=False)
    kind: Kind = ""
    additive: bool = False
    largest: float = math.inf
    output_within: Callable[[Radius], float] | None = field(default=None, compare=False, repr=False)
    leading: tuple[int, ...] = ()
    entries: int = field(default=0, compare=False)
    certified: Callable[[Any], float] | None = field(default=None, compare=False, repr=False)
    certified_offset: Callable[[], float] | None = field(default=None, compare=False, repr=False)
    matrix: Callable[[], Any] | None = field(default=None, compare=False, repr=False)
    rounding: Callable[[Any, Any], float] | None = field(default=None, compare=False, repr=False)
    forward: Callable[[Any], Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        constant = check_sensitivity(self.norm_constant, argument=f"{self.where}: norm_constant")
        object.__setattr__(self, "norm_constant", constant)
        if not self.lipschitz > 0:
            raise ArgumentError(
                f"{self.where}: lipschitz", "must be positive", self.lipschitz, "Pass a bound."
            )
        remedy = "Pass a bound on the module's output at zero."
        argument = f"{self.where}: offset"
        offset = check_number(self.offset, NOT_NEGATIVE, argument=argument, remedy=remedy)
        object.__setattr__(self, "offset", offset)
        if not self.largest >= 0:
            raise ArgumentError(
                f"{self.where}: largest",
                "must be at least 0",
                self.largest,
                "Pass a bound on the module's output, or leave it out.",
            )
        if self.weight is None and self.signature.mass != 0:
            raise ArgumentError(
                f"{self.where}: mass",
                "must be 0 for a module without a weight",
                self.signature.mass,
                "Leave the mass out: only weights learn.",
            )

    @property
    def where(self) -> str:
        return f"{self.label} at '{self.path}'" if self.path else self.label

    @property
    def parts(self) -> tuple[()]:
        return ()

    @property
    def identity(self) -> bool:
        """Whether the module returns its input."""
        return self.kind == "identity"

    @property
    def takes_parts(self) -> bool:
        """Whether the module accepts any space and maps a tuple part by part."""
        return self.signature.source is None

    def lipschitz_within(self, radius: Radius) -> float:
        """The slope bound on the manifold for inputs of norm at most `radius`."""
        return self.lipschitz if self.within is None else self.within(radius)

    def sensitivity_within(self, radius: Radius) -> float:
        """The slope bound for a weight in its unit ball and inputs of norm at most `radius`."""
        if self.weight is None:
            return self.lipschitz_within(radius)
        return self.signature.sensitivity

    def certified_within(self, radius: Radius) -> float:
        """The slope bound for the current weight and inputs of norm at most `radius`."""
        return self.lipschitz_within(radius) if self.certified is None else self.certified(radius)

    def as_it_is(self) -> Leaf:
        """The leaf with the offset of the current weight."""
        if self.certified_offset is None:
            return self
        return replace(self, offset=self.certified_offset())

    def slope(self, radius: Radius, bound: SlopeWithin) -> float:
        """The leaf's slope by the bound `bound`; for a tuple that it maps part by part, the largest of the parts.

        The reason is `Σ s_i ‖x_i − y_i‖ ≤ max_i s_i · Σ ‖x_i − y_i‖`.
        """
        if self.takes_parts and isinstance(radius, tuple):
            return max(self.slope(part, bound) for part in radius)
        return bound(radius)

    def reach(self, radius: Radius, bound: SlopeWithin) -> Radius:
        """A bound on the output, `min(s(r)·r + ‖f(0)‖, largest)`; a tuple for a tuple that it maps part by part."""
        if self.takes_parts and isinstance(radius, tuple):
            return tuple(self.reach(part, bound) for part in radius)
        bound_on_output = self.largest if self.output_within is None else self.output_within(radius)
        return min(times(bound(radius), total(radius)) + self.offset, bound_on_output)

    def rounding_within(self, radius: Radius, dtype: Any) -> float:
        """A bound on the module's own rounding error for inputs of norm at most `radius`; infinite if there is none."""
        if self.rounding is None:
            return 0.0 if self.identity else math.inf
        if self.takes_parts and isinstance(radius, tuple):
            return plus(self.rounding_within(part, dtype) for part in radius)
        return self.rounding(radius, dtype)

    def output(self, x: Any) -> Any:
        """f(x); a tuple is mapped part by part if the module accepts any space.

        Raises:
            LookupError: the leaf has no function.
        """
        if self.takes_parts and isinstance(x, tuple):
            return tuple(self.output(part) for part in x)
        if self.forward is not None:
            return self.forward(x)
        if self.identity:
            return x
        raise LookupError(self.path)


def identity(path: str) -> Leaf:
    """The leaf of the identity function at a path."""
    return Leaf(path, "Identity", Signature(0.0, 1.0, None, SAME), 1.0, kind="identity")

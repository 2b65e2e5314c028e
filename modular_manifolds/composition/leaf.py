"""A leaf of the tree: everything that is known of one atom or bond."""

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
"""The functions that reports know by name: x, max(x, 0), the entries of x in a row, the row of a token."""


@dataclass(frozen=True)
class Leaf:
    """An atom (with a weight) or a bond (without): all that a report asks, so that none looks for the module itself.

    The callables speak of the live module: a certified bound is that of the weight at the first call.

    Args:
        path: the module's place in the network, in PyTorch's dotted names.
        label: how the module reads in tables, such as `Linear(64, 10)`.
        signature: mass, sensitivity, rate scale and spaces.
        lipschitz: the slope bound that holds at *every* point of the weight's manifold, for inputs of any size;
            infinite if there is none.
        offset: a bound on `‖f(0)‖`, 0 for a module that maps zero to zero.
        weight: the weight's path; None for a bond.
        manifold: how the weight's geometry reads in tables.
        norm: how the weight's geometry reads in tables.
        norm_constant: κ with `‖∂f/∂w · Δw‖ ≤ κ ‖Δw‖` on unit inputs; 1 for a well-normed atom.
        within: the slope bound for inputs of norm at most r, as a function of r; `lipschitz` for every r
            without it. It does not count when trees are compared: `lipschitz` is its value at infinity.
        kind: the module's function, if reports know it by name.
        additive: whether the weight is added to the input: then a step of it moves the output by the same
            amount at every input, also at those smaller than 1.
        largest: a bound on `‖f(x)‖` for every x; infinite if there is none.
        output_within: a bound on `‖f(x)‖` for inputs of norm at most r, as a function of r, for what the
            slope does not tell; `largest` for every r without it. It does not count when trees are compared.
        leading: for a module that mixes the vectors of one input, as attention mixes positions: sizes of the
            dimensions between batch and features that an input may have; its norm is the largest over them.
        entries: the number of the module's weights.
        certified: the slope bound for the weight as it is now, for inputs of norm at most r, as a function of r;
            that of the manifold without it.
        certified_offset: the bound on `‖f(0)‖` for the weight as it is now; `offset` without it.
        matrix: W with `f(x) = W x` for every x, of shape (out, in); it, or what it gives, is None for a module that
            is not linear.
        rounding: a bound on `‖f̂(x) − f(x)‖` as a function of the bound on `‖x‖` and the dtype in which f̂ is
            computed, underflow aside; without it nothing is known.
        forward: the module's function; without it the network cannot be computed leaf by leaf.
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
        where = f"{self.where}: offset"
        offset = check_number(self.offset, NOT_NEGATIVE, argument=where, remedy=remedy)
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
        """Whether the module gives back its input."""
        return self.kind == "identity"

    @property
    def takes_parts(self) -> bool:
        """Whether the module takes any space, and so a tuple part by part."""
        return self.signature.source is None

    def lipschitz_within(self, radius: Radius) -> float:
        """The slope bound on the manifold for inputs of norm at most `radius`."""
        return self.lipschitz if self.within is None else self.within(radius)

    def sensitivity_within(self, radius: Radius) -> float:
        """The same for a weight in its unit ball; a bond has no weight and keeps its bound."""
        if self.weight is None:
            return self.lipschitz_within(radius)
        return self.signature.sensitivity

    def certified_within(self, radius: Radius) -> float:
        """The same for the weight as it is now; a bond's bound is the one it declares."""
        return self.lipschitz_within(radius) if self.certified is None else self.certified(radius)

    def as_it_is(self) -> Leaf:
        """The same leaf with the offset of the weight as it is now."""
        if self.certified_offset is None:
            return self
        return replace(self, offset=self.certified_offset())

    def slope(self, radius: Radius, bound: SlopeWithin) -> float:
        """The leaf's slope, its own bound being `bound`; on a tuple that it takes part by part the largest.

        `Σ s_i ‖x_i − y_i‖ ≤ max_i s_i · Σ ‖x_i − y_i‖`.
        """
        if self.takes_parts and isinstance(radius, tuple):
            return max(self.slope(part, bound) for part in radius)
        return bound(radius)

    def reach(self, radius: Radius, bound: SlopeWithin) -> Radius:
        """The size of its output, `min(s(r)·r + ‖f(0)‖, largest)`; a tuple that it takes part by part stays one."""
        if self.takes_parts and isinstance(radius, tuple):
            return tuple(self.reach(part, bound) for part in radius)
        known = self.largest if self.output_within is None else self.output_within(radius)
        return min(times(bound(radius), total(radius)) + self.offset, known)

    def rounding_within(self, radius: Radius, dtype: Any) -> float:
        """A bound on what the module alone rounds for inputs of norm at most `radius`; infinite if nothing is known."""
        if self.rounding is None:
            return 0.0 if self.identity else math.inf
        if self.takes_parts and isinstance(radius, tuple):
            return plus(self.rounding_within(part, dtype) for part in radius)
        return self.rounding(radius, dtype)

    def output(self, x: Any) -> Any:
        """f(x), a tuple part by part if the module takes any space.

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
    """The leaf of a path that carries the input on as it is."""
    return Leaf(path, "Identity", Signature(0.0, 1.0, None, SAME), 1.0, kind="identity")

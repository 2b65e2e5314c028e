"""A frozen tree of a network: leaves are atoms and bonds, branches are the composition rules.

The tree is derived from the live network at each call, so it cannot go stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from modular_manifolds.composition import rules
from modular_manifolds.composition.signature import Signature, check_sensitivity
from modular_manifolds.composition.space import AnySpace, MismatchError
from modular_manifolds.errors import ArgumentError, SpaceError


@dataclass(frozen=True)
class Leaf:
    """An atom (with a weight) or a bond (without).

    Args:
        path: where the module stands in the network, in PyTorch's dotted names.
        label: how the module reads in tables, such as `Linear(64, 10)`.
        signature: mass, sensitivity and spaces.
        lipschitz: the slope bound that holds at *every* point of the weight's manifold; infinite
            where the manifold is unbounded. At least the sensitivity's meaning, never assumed.
        offset: a bound on `‖f(0)‖`, 0 for a module that maps zero to zero.
        weight: the weight's path; None for a bond.
        manifold, norm: how the weight's geometry reads in tables.
        norm_constant: κ with `‖∂f/∂w · Δw‖ ≤ κ ‖Δw‖` on unit inputs; 1 for a well-normed atom.
        within: the slope bound for inputs of norm at most r, as a function of r; `lipschitz` for every r
            without it. It does not count when trees are compared: `lipschitz` is its value at infinity.
        identity: whether the module gives back its input.
        additive: whether the weight is added to the input: then a step of it moves the output by the same
            amount at every input, also at those smaller than 1.
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
    within: Callable[[float], float] | None = field(default=None, compare=False, repr=False)
    identity: bool = False
    additive: bool = False

    def __post_init__(self) -> None:
        check_sensitivity(self.norm_constant, argument=f"{self.where}: norm_constant")
        if not self.lipschitz > 0:
            raise ArgumentError(
                f"{self.where}: lipschitz", "must be positive", self.lipschitz, "Pass a bound."
            )
        if not (math.isfinite(self.offset) and self.offset >= 0):
            raise ArgumentError(
                f"{self.where}: offset",
                "must be finite and at least 0",
                self.offset,
                "Pass a bound on the module's output at zero.",
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

    def lipschitz_within(self, radius: float) -> float:
        """The slope bound on the manifold for inputs of norm at most `radius`."""
        return self.lipschitz if self.within is None else self.within(radius)

    def sensitivity_within(self, radius: float) -> float:
        """The same for a weight in its unit ball; a bond has no weight and keeps its bound."""
        if self.weight is None:
            return self.lipschitz_within(radius)
        return self.signature.sensitivity


@dataclass(frozen=True)
class Series:
    """The parts one after the other; data flows from the first to the last."""

    path: str
    parts: tuple[Tree, ...]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        _refuse_empty("Series", self.path, self.parts)
        signature, before = self.parts[0].signature, self.parts[0]
        for part in self.parts[1:]:
            try:
                signature = rules.series(signature, part.signature)
            except MismatchError:
                raise _does_not_fit(before, part, signature, part.signature) from None
            before = part
        object.__setattr__(self, "signature", signature)

    @property
    def where(self) -> str:
        return f"Series at '{self.path}'" if self.path else "Series"


@dataclass(frozen=True)
class Parallel:
    """The parts side by side on the same input; the output is a tuple."""

    path: str
    parts: tuple[Tree, ...]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        _refuse_empty("Parallel", self.path, self.parts)
        try:
            signature = rules.parallel([part.signature for part in self.parts])
        except MismatchError:
            raise _do_not_share("Parallel", self.parts, "take", _sources(self.parts)) from None
        object.__setattr__(self, "signature", signature)

    @property
    def where(self) -> str:
        return f"Parallel at '{self.path}'" if self.path else "Parallel"


@dataclass(frozen=True)
class Sum:
    """The parts side by side on the same input, added."""

    path: str
    parts: tuple[Tree, ...]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        _refuse_empty("Sum", self.path, self.parts)
        signatures = [part.signature for part in self.parts]
        try:
            rules.parallel(signatures)
        except MismatchError:
            raise _do_not_share("Sum", self.parts, "take", _sources(self.parts)) from None
        try:
            signature = rules.total(signatures)
        except MismatchError:
            targets: list[AnySpace | None] = [each.target for each in signatures]
            raise _do_not_share("Sum", self.parts, "give", targets) from None
        object.__setattr__(self, "signature", signature)

    @property
    def where(self) -> str:
        return f"Sum at '{self.path}'" if self.path else "Sum"


@dataclass(frozen=True)
class Scale:
    """One part, its output times a constant."""

    path: str
    factor: float
    part: Tree
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        signature = rules.scale(self.factor, self.part.signature)
        object.__setattr__(self, "signature", signature)

    @property
    def where(self) -> str:
        return f"Scale at '{self.path}'" if self.path else "Scale"


Tree = Leaf | Series | Parallel | Sum | Scale


def leaves(tree: Tree) -> Iterator[Leaf]:
    """All leaves, in the order in which data meets them."""
    match tree:
        case Leaf():
            yield tree
        case Scale():
            yield from leaves(tree.part)
        case _:
            for part in tree.parts:
                yield from leaves(part)


def with_leaves(tree: Tree, change: Callable[[Leaf], Leaf]) -> Tree:
    """The same tree with `change(leaf)` in the place of every leaf."""
    match tree:
        case Leaf():
            return change(tree)
        case Scale():
            return replace(tree, part=with_leaves(tree.part, change))
        case _:
            return replace(tree, parts=tuple(with_leaves(part, change) for part in tree.parts))


def reach(tree: Tree, radius: float) -> float:
    """The largest output for inputs of at most `radius`, for weights in their unit balls.

    `reach(leaf, r) = s(r)·r + ‖f(0)‖`; series compose, parallel and sum add, scale multiplies by |c|.
    """
    match tree:
        case Leaf():
            return times(tree.sensitivity_within(radius), radius) + tree.offset
        case Scale():
            return abs(tree.factor) * reach(tree.part, radius)
        case Series():
            for part in tree.parts:
                radius = reach(part, radius)
            return radius
        case _:
            return math.fsum(reach(part, radius) for part in tree.parts)


def slope(tree: Tree, radius: float) -> float:
    """A Lipschitz bound for inputs of at most `radius`, for weights in their unit balls.

    Each part's bound is taken at the radius that arrives there; without bonds whose bound depends on
    it this is the sensitivity.
    """
    match tree:
        case Leaf():
            return tree.sensitivity_within(radius)
        case Scale():
            return abs(tree.factor) * slope(tree.part, radius)
        case Series():
            bound = 1.0
            for part in tree.parts:
                bound, radius = times(bound, slope(part, radius)), reach(part, radius)
            return bound
        case _:
            return math.fsum(slope(part, radius) for part in tree.parts)


def times(bound: float, size: float) -> float:
    """`bound · size`, where nothing times without bound is nothing."""
    return 0.0 if bound == 0 or size == 0 else bound * size


def _refuse_empty(kind: str, path: str, parts: tuple[Tree, ...]) -> None:
    if not parts:
        raise ArgumentError(
            f"{kind}(modules)",
            "must hold at least one module",
            "none" + (f" at '{path}'" if path else ""),
            "Pass the modules to compose, or mm.Identity().",
        )


def _does_not_fit(before: Tree, after: Tree, given: Signature, taken: Signature) -> SpaceError:
    return SpaceError(
        f"{before.where} >> {after.where}",
        "must meet in one space",
        f"{given.target} into {taken.source}",
        "Change a size or a norm so that both agree, or put a module between them that maps one to the other.",
    )


def _sources(parts: tuple[Tree, ...]) -> list[AnySpace | None]:
    return [part.signature.source for part in parts]


def _do_not_share(
    kind: str, parts: tuple[Tree, ...], verb: str, spaces: list[AnySpace | None]
) -> SpaceError:
    stated = [(part, space) for part, space in zip(parts, spaces, strict=True) if space is not None]
    first, space = stated[0]
    other, different = next(pair for pair in stated if pair[1] != space)
    return SpaceError(
        f"{kind} of {first.where} and {other.where}",
        f"must {verb} one space",
        f"{space} and {different}",
        f"Change a size or a norm so that all parts {verb} the same space.",
    )

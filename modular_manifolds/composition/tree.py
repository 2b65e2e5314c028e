"""A frozen tree of a network: leaves are atoms and bonds, inner nodes are compositions.

The tree is computed from the live network at each call, so it is always up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from modular_manifolds.composition import rules
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.signature import Signature
from modular_manifolds.composition.space import AnySpace, MismatchError
from modular_manifolds.errors import ArgumentError, SpaceError


@dataclass(frozen=True)
class Series:
    """The parts in sequence; data flows from the first to the last."""

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

    def with_parts(self, parts: Sequence[Tree]) -> Series:
        """The same composition of other parts."""
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True)
class Parallel:
    """The parts on the same input; the output is the tuple of their outputs."""

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

    def with_parts(self, parts: Sequence[Tree]) -> Parallel:
        """The same composition of other parts."""
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True)
class Sum:
    """The parts on the same input; the output is the sum of their outputs."""

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

    def with_parts(self, parts: Sequence[Tree]) -> Sum:
        """The same composition of other parts."""
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True)
class Scale:
    """One part with its output multiplied by a constant."""

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

    @property
    def parts(self) -> tuple[Tree, ...]:
        return (self.part,)

    def with_parts(self, parts: Sequence[Tree]) -> Scale:
        """The same factor on another part."""
        return replace(self, part=parts[0])


Tree = Leaf | Series | Parallel | Sum | Scale


def leaves(tree: Tree) -> Iterator[Leaf]:
    """All leaves in the order of data."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Leaf):
            yield node
        else:
            stack.extend(reversed(node.parts))


def chain(tree: Tree) -> list[Tree]:
    """The parts of a series, with nested series flattened; a list of the tree itself if it is not a series."""
    stack, parts = [tree], list[Tree]()
    while stack:
        node = stack.pop()
        if isinstance(node, Series):
            stack.extend(reversed(node.parts))
        else:
            parts.append(node)
    return parts


def leading(tree: Tree) -> tuple[int, ...]:
    """Example sizes of the dimensions between batch and features: `leading` of the first leaf that declares it."""
    return next((leaf.leading for leaf in leaves(tree) if leaf.leading), ())


def as_it_is(tree: Tree) -> Tree:
    """The tree with the offsets of the current weights."""
    if isinstance(tree, Leaf):
        return tree.as_it_is()
    return tree.with_parts([as_it_is(part) for part in tree.parts])


def _refuse_empty(kind: str, path: str, parts: tuple[Tree, ...]) -> None:
    if not parts:
        raise ArgumentError(
            f"{kind}(modules)",
            "must hold at least one module",
            "none" + (f" at '{path}'" if path else ""),
            "Pass the modules to compose, or mm.Identity().",
        )


def _does_not_fit(before: Tree, after: Tree, offered: Signature, required: Signature) -> SpaceError:
    return SpaceError(
        f"{before.where} >> {after.where}",
        "must meet in one space",
        f"{offered.target} into {required.source}",
        "Change a size or a norm so that both agree, or put a module between them that maps one to the other.",
    )


def _sources(parts: tuple[Tree, ...]) -> list[AnySpace | None]:
    return [part.signature.source for part in parts]


def _do_not_share(
    kind: str, parts: tuple[Tree, ...], verb: str, spaces: list[AnySpace | None]
) -> SpaceError:
    stated = [(part, space) for part, space in zip(parts, spaces, strict=True) if space is not None]
    first, space = stated[0]
    other, other_space = next(pair for pair in stated if pair[1] != space)
    return SpaceError(
        f"{kind} of {first.where} and {other.where}",
        f"must {verb} one space",
        f"{space} and {other_space}",
        f"Change a size or a norm so that all parts {verb} the same space.",
    )

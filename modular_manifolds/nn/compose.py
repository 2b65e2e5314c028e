"""The compositions: series, parallel, sum, scale, power, residual."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, SupportsIndex

import torch

from modular_manifolds.arguments import check_count, whole
from modular_manifolds.composition import tree as trees
from modular_manifolds.composition.rules import check_factor
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.bonds import Identity
from modular_manifolds.nn.compound import Compound
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Bond
from modular_manifolds.nn.module import Module, check_part, joined, refuse_shared_weights


class Series(Compound):
    """`mm.Series(f, g)` or `mm.Series(first=f, then=g)`: g(f(x)).

    Nested series are flattened: the parts of an unnamed Series take its place.
    """

    def __init__(self, /, *modules: Module, **named: Module) -> None:
        flat: list[Module] = []
        for module in modules:
            flat.extend(_unnamed_parts(module) or [module])
        super().__init__(*flat, **named)

    def tree(self, path: str = "") -> Tree:
        return trees.Series(path, self.trees(path))

    def forward(self, x: Any) -> Any:
        for _, part in self.parts():
            x = applied(part, x)
        return x


class Parallel(Compound):
    """`mm.Parallel(f, g)` or `mm.Parallel(query=f, key=g)`: the tuple (f(x), g(x))."""

    def tree(self, path: str = "") -> Tree:
        return trees.Parallel(path, self.trees(path))

    def forward(self, x: Any) -> tuple[Any, ...]:
        return tuple(applied(part, x) for _, part in self.parts())


class Sum(Compound):
    """`mm.Sum(f, g)` or `f + g`: f(x) + g(x)."""

    def tree(self, path: str = "") -> Tree:
        return trees.Sum(path, self.trees(path))

    def forward(self, x: Any) -> Any:
        return added([applied(part, x) for _, part in self.parts()])


class Scale(Module):
    """`mm.Scale(f, c)` or `c * f`: c · f(x). Sensitivity is multiplied by |c|: its sign does not count.

    Raises:
        ArgumentError: the factor is zero or not finite.
    """

    def __init__(self, module: Module, factor: float) -> None:
        super().__init__()
        self.module = check_part(module, argument="Scale(module)")
        self.factor = check_factor(factor)
        self.tree()

    def tree(self, path: str = "") -> Tree:
        if not path:
            refuse_shared_weights(self)
        return trees.Scale(path, self.factor, self.module.tree(joined(path, "module")))

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        return self.module.geometries(joined(path, "module"))

    def forward(self, x: Any) -> Any:
        return scaled(self.factor, applied(self.module, x))

    def arguments(self) -> dict[str, object]:
        return {"module": self.module, "factor": self.factor}

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}"


class Residual(Module):
    """`(1 − 1/L) · x + (1/L) · block(x)` with L = `depth`: sensitivity 1 when the block's is 1.

    Repeat it L times (`mm.Residual(block, depth=L) ** L`) for a residual network whose sensitivity
    does not grow with depth. Source: Large et al. (2024), section 3.

    Raises:
        ArgumentError: `depth` is not a positive whole number. SpaceError: the block does not give the
        space it takes.
    """

    def __init__(self, block: Module, *, depth: int) -> None:
        super().__init__()
        self.block = check_part(block, argument="Residual(block)")
        self.depth = check_count(
            depth, argument="Residual(depth)", what="blocks in the whole chain"
        )
        self.tree()

    def tree(self, path: str = "") -> Tree:
        if not path:
            refuse_shared_weights(self)
        block = self.block.tree(joined(path, "block"))
        skip = Identity().tree(joined(path, "skip"))
        if self.depth == 1:
            trees.Sum(path, (skip, block))  # raises where the block does not give what it takes
            return block
        part = 1.0 / self.depth
        return trees.Sum(
            path,
            (
                trees.Scale(joined(path, "skip"), 1.0 - part, skip),
                trees.Scale(joined(path, "block"), part, block),
            ),
        )

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        return self.block.geometries(joined(path, "block"))

    def forward(self, x: Any) -> Any:
        return between(x, applied(self.block, x), 1.0 / self.depth)

    def arguments(self) -> dict[str, object]:
        return {"block": self.block, "depth": self.depth}

    def extra_repr(self) -> str:
        return f"depth={self.depth}"


def in_series(first: Module, then: Module) -> Series:
    """`first >> then`; a series on either side is continued, names that were given are kept."""
    parts = [*_parts_of(first), *_parts_of(then)]
    named: dict[str, Module] = {}
    for position, (name, part) in enumerate(parts):
        key = name or str(position)
        if key in named:
            raise ArgumentError(
                "f >> g",
                "must not give two parts one name",
                f"'{key}' twice",
                "Rename one of them.",
            )
        named[key] = part
    return Series(**named)


def power(module: Module, times: SupportsIndex) -> Series:
    """`f ** n`: n copies of f in series, each with weights drawn afresh."""
    count = whole(times)
    if count is None or count < 1:
        raise ArgumentError(
            "f ** n", "must have a positive whole n", repr(times), "Leave the module out for n = 0."
        )
    copies = [copy.deepcopy(module) for _ in range(count)]
    for each in copies:
        each.reset_parameters()
    return Series(*copies)


def applied(part: Module, x: Any) -> Any:
    """`part(x)`; a bond that takes any space takes a tuple part by part.

    The norm of a tuple is the sum over its parts, so the bond's sensitivity holds for the tuple too.
    """
    if isinstance(x, tuple) and isinstance(part, Bond) and part.source is None:
        return tuple(applied(part, each) for each in x)
    return part(x)


def _unnamed_parts(module: Module) -> list[Module] | None:
    """The parts of a Series whose names are just positions; None for anything else."""
    if not isinstance(module, Series):
        return None
    parts = module.parts()
    if any(name != str(i) for i, (name, _) in enumerate(parts)):
        return None
    return [part for _, part in parts]


def _parts_of(module: Module) -> list[tuple[str | None, Module]]:
    if not isinstance(module, Series):
        return [(None, module)]
    return [(None if name.isdecimal() else name, part) for name, part in module.parts()]


def added(outputs: list[Any]) -> Any:
    """The sum of tensors, or of tuples part by part."""
    if isinstance(outputs[0], tuple):
        return tuple(added(list(parts)) for parts in zip(*outputs, strict=True))
    total = outputs[0]
    for each in outputs[1:]:
        total = total + each
    return total


def between(x: Any, y: Any, part: float) -> Any:
    """`(1 − part) x + part y` of tensors, or of tuples part by part; for a part of at most 1/2, or 1."""
    if isinstance(x, tuple):
        return tuple(between(a, b, part) for a, b in zip(x, y, strict=True))
    return torch.lerp(x, y, part)


def scaled(factor: float, output: Any) -> Any:
    """A tensor times a constant, or a tuple part by part."""
    if isinstance(output, tuple):
        return tuple(scaled(factor, part) for part in output)
    return factor * output

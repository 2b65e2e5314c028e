"""How many modules and weights a specification asks for, counted before any of them is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch

from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.specs.schema import CompoundNode, Node, PowerNode, below

MOST_MODULES: Final = 10_000
"""Modules that a network may have unless its caller says another number: as many take seconds to make."""
MOST_WEIGHTS: Final = 2**40
"""Entries of all weights that the budget of a network is printed for; as float32 they are 4 TiB."""
TO_BUILD: Final = 8
"""Bytes an entry that a new network takes: the weight, and what it is drawn from."""
TO_TRAIN: Final = 20
"""Bytes an entry that a run takes: weight, gradient, momentum, first weight and a copy for the checkpoint."""


@dataclass(frozen=True)
class Size:
    """The number of modules, and of entries of all their weights together."""

    modules: int
    weights: int

    def __add__(self, other: Size) -> Size:
        return Size(self.modules + other.modules, self.weights + other.weights)

    def __mul__(self, times: int) -> Size:
        return Size(self.modules * times, self.weights * times)


@dataclass(frozen=True)
class Limits:
    """The largest network that a caller wants.

    Args:
        modules: how many modules it may have.
        weights: how many entries its weights may have together; None for as many as memory holds.
    """

    modules: int = MOST_MODULES
    weights: int | None = None

    def check_modules(self, count: int, argument: str) -> None:
        """Refuse a network of too many modules.

        Raises:
            SpecError: there are more.
        """
        if count > self.modules:
            raise SpecError(
                argument,
                f"must have at most {self.modules:,} modules",
                written(count),
                "Repeat fewer, or raise max_modules.",
            )

    def check_weights(self, count: int, argument: str, *, bytes_each: int | None = None) -> None:
        """Refuse a network of too many weights.

        Args:
            bytes_each: what an entry takes in memory; None if nothing is put there.

        Raises:
            SpecError: there are more, or memory does not hold them.
        """
        most = MOST_WEIGHTS if self.weights is None else self.weights
        if count > most:
            raise SpecError(
                argument,
                f"must have at most {most:,} entries in its weights",
                written(count),
                "Choose smaller sizes, or raise max_weights.",
            )
        if bytes_each is not None and self.weights is None:
            check_memory(
                count * bytes_each,
                argument=argument,
                seen=f"{written(count)} entries of weights",
                remedy="Choose smaller sizes, or set max_weights to try it all the same.",
                error=SpecError,
            )


def modules_of(node: Node) -> int:
    """How many modules `node` stands for, by arithmetic."""
    match node:
        case CompoundNode():
            return 1 + sum(modules_of(part) for _, part in node.parts())
        case PowerNode():
            return 1 + node.times * modules_of(node.module)
        case _:
            return 1 + sum(modules_of(part) for _, part in _inside(node))


def size_of(node: Node, where: str = "") -> Size:
    """Modules and weights of what `node` stands for. No weight is made, and of equal modules one is looked at.

    Raises:
        ArgumentError: an argument of a module is out of range; the message names the place.
    """
    return _Counted().size(node, where)


class _Counted:
    """The sizes of the modules that have been looked at."""

    def __init__(self) -> None:
        self._known: dict[Node, Size] = {}

    def size(self, node: Node, where: str) -> Size:
        match node:
            case CompoundNode():
                place = below(where, "modules")
                return self._around((below(place, name), part) for name, part in node.parts())
            case PowerNode():
                repeated = self.size(node.module, below(where, "module")) * node.times
                return Size(1, 0) + repeated
            case _ if inside := _inside(node):
                return self._around((below(where, name), part) for name, part in inside)
            case _:
                if node not in self._known:
                    with torch.device("meta"):
                        self._known[node] = weights_of(node.build(where))
                return self._known[node]

    def _around(self, parts: Iterable[tuple[str, Node]]) -> Size:
        return sum((self.size(part, place) for place, part in parts), start=Size(1, 0))


def weights_of(net: Module) -> Size:
    """Modules and weights of a network that is there, be it without values."""
    modules = sum(1 for _ in net.modules())
    return Size(modules, sum(each.numel() for each in net.parameters()))


def written(count: int) -> str:
    """A number in digits, or as a power of two when it is longer than a line."""
    return f"{count:,}" if count < 10**30 else f"about 2^{count.bit_length() - 1}"


def _inside(node: Node) -> list[tuple[str, Node]]:
    """The modules that a module wraps, by argument."""
    return [(name, value) for name, value in node if isinstance(value, Node) and _is_module(value)]


def _is_module(node: Node) -> bool:
    if isinstance(node, PowerNode):
        return True
    return issubclass(type(node).constructs, Module)

"""The number of modules and weights of a specification, counted before the network is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch

from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.specs.schema import CompoundNode, Node, PowerNode, below

MAX_MODULES: Final = 10_000
"""The default limit on the modules of a network: building this many takes seconds."""
MAX_WEIGHTS: Final = 2**40
"""The default limit on weight entries; in float32 they need 4 TiB."""
TO_BUILD: Final = 8
"""Bytes for each entry of a new network: the weight and its random sample."""
TO_TRAIN: Final = 20
"""Bytes for each entry in a run: weight, gradient, momentum, first weight and a copy for the checkpoint."""


@dataclass(frozen=True)
class Size:
    """The number of modules, and the number of all weight entries."""

    modules: int
    weights: int

    def __add__(self, other: Size) -> Size:
        return Size(self.modules + other.modules, self.weights + other.weights)

    def __mul__(self, times: int) -> Size:
        return Size(self.modules * times, self.weights * times)


@dataclass(frozen=True)
class Limits:
    """Limits on the size of a network.

    Args:
        modules: the largest number of modules.
        weights: the largest number of weight entries; None for as many as fit into memory.
    """

    modules: int = MAX_MODULES
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
            bytes_each: the memory for each entry, in bytes; None if no memory is needed.

        Raises:
            SpecError: there are more, or they do not fit into memory.
        """
        most = MAX_WEIGHTS if self.weights is None else self.weights
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
                remedy="Choose smaller sizes, or set max_weights to try it anyway.",
                error=SpecError,
            )


def modules_of(node: Node) -> int:
    """The number of modules of `node`, without building them."""
    match node:
        case CompoundNode():
            return 1 + sum(modules_of(part) for _, part in node.parts())
        case PowerNode():
            return 1 + node.times * modules_of(node.module)
        case _:
            return 1 + sum(modules_of(part) for _, part in _inside(node))


def size_of(node: Node, where: str = "") -> Size:
    """The size of the network of `node`. No weight is allocated, and equal modules are built once.

    Raises:
        ArgumentError: an argument of a module is out of range; the message names its position.
    """
    return _Counted().size(node, where)


class _Counted:
    """Computes sizes, and caches those of equal modules."""

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
    """The size of an existing network, with or without values."""
    modules = sum(1 for _ in net.modules())
    return Size(modules, sum(each.numel() for each in net.parameters()))


def written(count: int) -> str:
    """A number in digits, or as a power of two if it has more than 30 digits."""
    return f"{count:,}" if count < 10**30 else f"about 2^{count.bit_length() - 1}"


def _inside(node: Node) -> list[tuple[str, Node]]:
    """The modules that a module wraps, by argument."""
    return [(name, value) for name, value in node if isinstance(value, Node) and _is_module(value)]


def _is_module(node: Node) -> bool:
    if isinstance(node, PowerNode):
        return True
    return issubclass(type(node).constructs, Module)

"""A network as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import ConfigDict, RootModel

from modular_manifolds.errors import SpecError
from modular_manifolds.manifolds import Manifold
from modular_manifolds.nn import Module
from modular_manifolds.nn.network import check_declared
from modular_manifolds.norms import Norm
from modular_manifolds.specs.document import Document
from modular_manifolds.specs.schema import ModuleNode
from modular_manifolds.specs.size import (
    MOST_MODULES,
    TO_BUILD,
    Limits,
    modules_of,
    size_of,
)
from modular_manifolds.specs.table import COMPOUNDS, MANIFOLDS, MODULES, NORMS


class NetworkSpec(Document, RootModel[ModuleNode]):
    """The description needed to build a network like this one, without its weights.

    Modules are mappings with a `type`; a type that needs no arguments may be written as its name alone.
    `NetworkSpec.from_module(spec.build())` is a normal form: powers expanded, defaults written out; it
    builds a network with the same tree, and dumping that gives the same specification.
    """

    model_config = ConfigDict(frozen=True)

    @classmethod
    def from_module(cls, net: Module) -> NetworkSpec:
        """The specification of a live network.

        Raises:
            SpecError: a module, manifold or norm is not of this library; the message names it.
        """
        network = check_declared(net, argument="NetworkSpec.from_module(net)")
        return cls.model_validate(_dumped(network, "net"))

    def build(
        self,
        where: str = "",
        *,
        max_modules: int = MOST_MODULES,
        max_weights: int | None = None,
    ) -> Module:
        """A network with weights drawn afresh, from torch's global generator.

        Args:
            where: how errors name the place of this specification in a larger one.
            max_modules: how many modules the network may have.
            max_weights: how many entries its weights may have together; as many as memory holds without it.

        Raises:
            ArgumentError: an argument is out of range, or two modules do not fit; the message says
                at which place in the specification.
            SpecError: the network is larger than allowed. Nothing is made then.
        """
        self.check_size(Limits(max_modules, max_weights), where, bytes_each=TO_BUILD)
        return self.root.build(where)

    def check_size(self, limits: Limits, where: str = "", *, bytes_each: int | None = None) -> None:
        """Count modules and weights, and refuse the network if it is larger than allowed.

        Args:
            bytes_each: what an entry of a weight takes in memory; None if nothing is put there.

        Raises:
            SpecError: it is larger.
            ArgumentError: an argument is out of range.
        """
        argument = where or "the network"
        limits.check_modules(modules_of(self.root), argument)
        limits.check_weights(size_of(self.root, where).weights, argument, bytes_each=bytes_each)

    def normal(self) -> NetworkSpec:
        """The normal form, without touching torch's global generator."""
        self.check_size(Limits())
        return type(self).from_module(self.build_without_weights())

    def build_aside(self, where: str = "") -> Module:
        """Like `build`, `aside`, and of any size."""
        with aside():
            return self.root.build(where)

    def build_without_weights(self, where: str = "") -> Module:
        """A network whose weights have shapes and no values, on torch's meta device; of any size."""
        with without_weights():
            return self.root.build(where)


@contextmanager
def without_weights() -> Iterator[None]:
    """While inside, networks are built on the meta device, and torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield


@contextmanager
def aside() -> Iterator[None]:
    """While inside, networks are built on the CPU, and torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        yield


NAMES = {
    kind: name for table in (MANIFOLDS, NORMS, MODULES, COMPOUNDS) for name, kind in table.items()
}


def _dumped(value: object, where: str) -> object:
    if not isinstance(value, Module | Manifold | Norm):
        return value
    kind = NAMES.get(type(value))
    if kind is None:
        raise SpecError(
            where,
            "must be of a class that specifications know",
            type(value).__name__,
            f"Known here: {', '.join(_known(value))}. Build a network with classes of your own in Python.",
        )
    if isinstance(value, Module):
        arguments = value.arguments()
    else:
        arguments = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    dumped = {name: _dumped(each, f"{where}.{name}") for name, each in arguments.items()}
    return (
        {"type": kind, "modules": _in_a_row(kind, dumped)}
        if kind in COMPOUNDS
        else {"type": kind, **dumped}
    )


def _in_a_row(kind: str, named: dict[str, object]) -> object:
    """A list if it builds the same names, else a mapping.

    A list of modules flattens the unnamed series in it, as `mm.Series(f, g)` does; a mapping does not.
    """
    counted = list(named) == [str(i) for i in range(len(named))]
    flattened = kind == "series" and any(
        isinstance(each, dict) and each["type"] == "series" and isinstance(each["modules"], list)
        for each in named.values()
    )
    return list(named.values()) if counted and not flattened else named


def _known(value: Module | Manifold | Norm) -> list[str]:
    match value:
        case Manifold():
            return list(MANIFOLDS)
        case Norm():
            return list(NORMS)
        case Module():
            return [*MODULES, *COMPOUNDS]

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
    MAX_MODULES,
    TO_BUILD,
    Limits,
    modules_of,
    size_of,
)
from modular_manifolds.specs.table import COMPOUNDS, MANIFOLDS, MODULES, NORMS


class NetworkSpec(Document, RootModel[ModuleNode]):
    """The structure of a network, without its weights.

    Modules are mappings with a `type`; a type without required arguments may be written as its name alone.
    `NetworkSpec.from_module(spec.build())` is a normal form with expanded powers and explicit defaults. It builds a network
    with the same tree, whose specification is the normal form again.
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
        max_modules: int = MAX_MODULES,
        max_weights: int | None = None,
    ) -> Module:
        """A network with new random weights from torch's global generator.

        Args:
            where: the position of this specification in a larger one, for errors.
            max_modules: the largest number of modules.
            max_weights: the largest number of weight entries; None for as many as fit into memory.

        Raises:
            ArgumentError: an argument is out of range, or two modules do not fit; the message names the position in
                the specification.
            SpecError: the network is larger than allowed; then nothing is built.
        """
        self.check_size(Limits(max_modules, max_weights), where, bytes_each=TO_BUILD)
        return self.root.build(where)

    def check_size(self, limits: Limits, where: str = "", *, bytes_each: int | None = None) -> None:
        """Count modules and weights, and refuse the network if it is larger than allowed.

        Args:
            bytes_each: the memory for each weight entry, in bytes; None if no memory is needed.

        Raises:
            SpecError: the network is larger.
            ArgumentError: an argument is out of range.
        """
        argument = where or "the network"
        limits.check_modules(modules_of(self.root), argument)
        limits.check_weights(size_of(self.root, where).weights, argument, bytes_each=bytes_each)

    def normal(self) -> NetworkSpec:
        """The normal form; torch's global generator is not used."""
        self.check_size(Limits())
        return type(self).from_module(self.build_without_weights())

    def build_aside(self, where: str = "") -> Module:
        """Like `build`, but without size limits and inside `aside()`."""
        with aside():
            return self.root.build(where)

    def build_without_weights(self, where: str = "") -> Module:
        """A network of any size on torch's meta device: its weights have shapes but no values."""
        with without_weights():
            return self.root.build(where)


@contextmanager
def without_weights() -> Iterator[None]:
    """A context in which networks are built on the meta device, and torch's global generator is restored afterwards."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield


@contextmanager
def aside() -> Iterator[None]:
    """A context in which networks are built on the CPU, and torch's global generator is restored afterwards."""
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
    """The modules as a list if that builds the same names, otherwise as a mapping.

    A list flattens unnamed series inside it, as `mm.Series(f, g)` does; a mapping does not.
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

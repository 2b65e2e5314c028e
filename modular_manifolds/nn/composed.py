"""The protocols of networks: named weights, logical matrices, and the composition tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from torch import nn

from modular_manifolds.composition.budget import Budget
from modular_manifolds.composition.tree import Tree
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece


@runtime_checkable
class Weighted(Protocol):
    """Named weights with their geometries, and the budget that splits a learning rate over them.

    The optimiser, `mm.budget`, `mm.conditioning` and projections need only this. Every `mm.Module` is `Weighted`.
    """

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights by path."""
        ...

    def geometries(self) -> Iterator[tuple[str, Geometry]]:
        """The geometry of each weight by its path, in the order of the budget."""
        ...

    def budget(self, lr: float = 1.0) -> Budget:
        """The split of one learning rate over the weights, one row for each weight."""
        ...


@runtime_checkable
class Adapted(Weighted, Protocol):
    """The weights of an adapted model: a tensor may hold several logical matrices, or have no geometry.

    `geometries` and the rows of the budget name logical matrices; `named_parameters` names the stored tensors.
    """

    def pieces(self) -> Mapping[str, tuple[str, Piece]]:
        """For each logical matrix that is not a whole parameter: the parameter's name, and the piece of the parameter."""
        ...

    def fallbacks(self) -> Mapping[str, Mapping[str, Any]]:
        """For each parameter without a geometry that another optimiser steps: `{"optimizer": "adamw", ...}`."""
        ...


@runtime_checkable
class Attached(Adapted, Protocol):
    """An adapted model that also knows its model and the weights that are not stepped."""

    @property
    def model(self) -> nn.Module:
        """The model, without wrappers."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of trainable parameters that no optimiser steps."""
        ...


@runtime_checkable
class Composed(Weighted, Protocol):
    """A weighted network with the tree of its composition, from which bounds on its function follow.

    `mm.lipschitz`, `mm.activations`, `mm.robustness` and `mm.local_lipschitz` need it. They examine a copy in float64,
    so the network must also be a `torch.nn.Module`. Every `mm.Module` is both; your own class need not inherit from it.
    The leaves of the tree hold all data that reports need, so a leaf may represent any module.
    """

    def tree(self, path: str = "") -> Tree:
        """The current composition tree; its paths begin with `path`."""
        ...

    def __call__(self, x: Any) -> Any:
        """The network's function."""
        ...


WEIGHTED: Final = ("named_parameters", "geometries", "budget")
"""The methods of `Weighted`."""

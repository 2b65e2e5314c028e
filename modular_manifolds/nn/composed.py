"""The protocols that everything asks of a network: its weights, its logical matrices, and its composition."""

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

    The optimiser, `mm.budget`, `mm.conditioning` and projections need no more. Every `mm.Module` is one.
    """

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights by path."""
        ...

    def geometries(self) -> Iterator[tuple[str, Geometry]]:
        """The geometry of each weight by its path, in the order of the budget."""
        ...

    def budget(self, lr: float = 1.0) -> Budget:
        """The split of one learning rate over the weights, a row a weight."""
        ...


@runtime_checkable
class Adapted(Weighted, Protocol):
    """Weights of a model that was not declared: some of its tensors hold several logical matrices, some have no geometry.

    `geometries` and the rows of the budget name logical matrices here, and `named_parameters` the stored tensors.
    """

    def pieces(self) -> Mapping[str, tuple[str, Piece]]:
        """For each logical matrix that is not a whole parameter: the parameter's name, and the piece of it."""
        ...

    def fallbacks(self) -> Mapping[str, Mapping[str, Any]]:
        """For each parameter without a geometry that another optimiser steps: `{"optimizer": "adamw", ...}`."""
        ...


@runtime_checkable
class Attached(Adapted, Protocol):
    """An adapted model that can be asked for all of its weights, those without a row too."""

    @property
    def model(self) -> nn.Module:
        """The model, without wrappers."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of trainable parameters that nobody is to step."""
        ...


@runtime_checkable
class Composed(Weighted, Protocol):
    """A weighted network with the tree of its composition, from which bounds on its function follow.

    `mm.lipschitz`, `mm.activations`, `mm.robustness` and `mm.local_lipschitz` need it. They examine a copy in float64,
    so the network is a `torch.nn.Module` as well. Every `mm.Module` is both; a class of your own need not inherit it.
    The leaves of the tree carry all that the reports ask, so a leaf may stand for any module.
    """

    def tree(self, path: str = "") -> Tree:
        """The composition as it is now, its paths beginning with `path`."""
        ...

    def __call__(self, x: Any) -> Any:
        """The network's function."""
        ...


WEIGHTED: Final = ("named_parameters", "geometries", "budget")
"""The methods of `Weighted`."""

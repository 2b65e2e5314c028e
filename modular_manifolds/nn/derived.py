"""The properties of a module that follow from its composition tree and the geometries of its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import nn

from modular_manifolds.composition.allocation import allocate
from modular_manifolds.composition.budget import Budget
from modular_manifolds.composition.sizes import slope
from modular_manifolds.composition.space import AnySpace
from modular_manifolds.composition.tree import Tree
from modular_manifolds.manifolds.product import Product
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.sharing import refuse_shared_weights
from modular_manifolds.norms.modular import ModularNorm


class Derived(nn.Module, ABC):
    """A `torch.nn.Module` with a composition tree, from which mass, sensitivity and others are computed at each call."""

    @abstractmethod
    def tree(self, path: str = "") -> Tree:
        """The composition tree of this module; its paths begin with `path`."""

    @abstractmethod
    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        """The geometry of each weight by its path, in the order of data."""

    @property
    def mass(self) -> float:
        """The share of the learning: the sum of the masses of the atoms inside."""
        return self.tree().signature.mass

    @property
    def sensitivity(self) -> float:
        """A Lipschitz bound in the input, for inputs in the unit ball and weights in their unit balls.

        Every part's bound is evaluated at the bound on its input. If no part's bound depends on its input, the result
        holds for all inputs, and sensitivities multiply in series and add in parallel. It is infinite if there is no
        finite bound.
        """
        return slope(self.tree(), 1.0)

    @property
    def rate_scale(self) -> float:
        """The slope that the budget divides the learning rate by.

        It is the sensitivity for modules that declare no other. Attention and Amplify declare a typical slope, which
        is not a bound. Rate scales multiply in series and add in parallel.
        """
        return self.tree().signature.rate_scale

    @property
    def source(self) -> AnySpace | None:
        """The space of the module's inputs; None if it accepts any space."""
        return self.tree().signature.source

    @property
    def target(self) -> AnySpace:
        """The space of the module's outputs."""
        return self.tree().signature.target

    def budget(self, lr: float = 1.0) -> Budget:
        """The split of one learning rate over the weights.

        Raises:
            ArgumentError: `lr` is not finite or is negative.
        """
        return allocate(self.tree(), lr)

    @property
    def manifold(self) -> Product:
        """The product manifold over the named weights."""
        refuse_shared_weights(self)
        return Product({path: geometry.manifold for path, geometry in self.geometries()})

    @property
    def modular_norm(self) -> ModularNorm:
        """The modular norm over the named weights."""
        refuse_shared_weights(self)
        shares = self.budget().shares
        return ModularNorm({path: each.norm for path, each in self.geometries()}, shares)

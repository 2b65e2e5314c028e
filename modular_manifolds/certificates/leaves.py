"""The modules that stand at the leaves of a tree, and the bounds that are known of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import Radius
from modular_manifolds.composition.tree import Tree, with_leaves
from modular_manifolds.linalg.rounding import largest_singular_value
from modular_manifolds.nn.leaf import Atom, Bond
from modular_manifolds.nn.module import Module


def module_at(net: Module, leaf: Leaf) -> Atom | Bond | None:
    """The atom or bond at a leaf; None for a leaf that is no module of its own, as a residual's skip."""
    try:
        module = net.get_submodule(leaf.path)
    except AttributeError:
        if leaf.weight is not None:
            raise
        return None
    return module if isinstance(module, Atom | Bond) else None


@dataclass(frozen=True)
class Certified:
    """Slope bounds of the leaves of `net` for its weights as they are; each weight is decomposed once."""

    net: Module
    _certified: dict[str, float | None] = field(
        default_factory=dict[str, "float | None"], repr=False
    )
    _largest: dict[str, float] = field(default_factory=dict[str, float], repr=False)

    def slope(self, leaf: Leaf, radius: Radius) -> float:
        """The leaf's bound for inputs of norm at most `radius`; a bond's is the one it declares."""
        module = module_at(self.net, leaf)
        if not isinstance(module, Atom):
            return leaf.lipschitz_within(radius)
        if leaf.path not in self._certified:
            self._certified[leaf.path] = module.certified()
        own = self._certified[leaf.path]
        if own is not None:
            return own
        if leaf.path not in self._largest:
            self._largest[leaf.path] = largest_singular_value(module.weight)
        return module.lipschitz_within(radius, largest_singular_value=self._largest[leaf.path])

    def tree(self, tree: Tree) -> Tree:
        """The same tree with the offsets of the weights as they are."""

        def change(leaf: Leaf) -> Leaf:
            module = module_at(self.net, leaf)
            if not isinstance(module, Atom):
                return leaf
            return replace(leaf, offset=module.certified_offset())

        return with_leaves(tree, change)

    def matrix(self, leaf: Leaf) -> Tensor | None:
        """The matrix of a linear atom; None for everything else."""
        module = module_at(self.net, leaf)
        return module.matrix() if isinstance(module, Atom) else None


def declared(leaf: Leaf, radius: Radius) -> float:
    """The bound that holds on the whole manifold."""
    return leaf.lipschitz_within(radius)

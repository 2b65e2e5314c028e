"""The learning-rate budget of a live network."""

from __future__ import annotations

from modular_manifolds.composition.budget import Budget, allocate
from modular_manifolds.nn.module import Module
from modular_manifolds.nn.network import check_network, check_weights


def budget(net: Module, lr: float = 1.0) -> Budget:
    """How one learning rate is split over all weights of `net`; `print` the result to read it.

    Derived from the tree as it is now; see `Budget` for the columns and the promise.

    Raises:
        ArgumentError: `net` is not a module of this library, or `lr` is out of range.
    """
    network = check_network(net, argument="budget(net)")
    check_weights(network, argument="budget(net)")
    return allocate(network.tree(), lr)

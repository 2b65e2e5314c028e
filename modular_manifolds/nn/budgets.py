"""The learning-rate budget of a live network."""

from __future__ import annotations

from modular_manifolds.composition.budget import Budget
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.network import check_network, check_weights


def budget(net: Weighted, lr: float = 1.0) -> Budget:
    """The split of one learning rate over all weights of `net`; `print` the result to read it.

    It is computed from the current network; see `Budget` for the columns and the bound.

    Raises:
        ArgumentError: `net` is not `Weighted`, or `lr` is out of range.
    """
    network = check_network(net, argument="budget(net)")
    check_weights(network, argument="budget(net)")
    return network.budget(lr)

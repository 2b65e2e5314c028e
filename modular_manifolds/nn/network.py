"""The door of everything that takes a network: what comes in is looked through and checked here."""

from __future__ import annotations

from torch import nn

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.module import Module, check_module, refuse_shared_weights
from modular_manifolds.nn.tracing import has_values


def check_network(net: object, *, argument: str) -> Module:
    """Give back the network inside torch's wrappers, with each weight at one place.

    Args:
        argument: the name that the caller wrote, for errors.

    Raises:
        ArgumentError: `net` is no module of this library. SharedWeightError: a weight stands at two places.
    """
    network = check_module(net, argument=argument)
    refuse_shared_weights(network)
    return network


def check_values(network: Module, *, argument: str) -> None:
    """Refuse a network whose weights have no values, as on the meta device.

    Raises:
        ArgumentError: the message names the first such weight.
    """
    for path, parameter in network.named_parameters():
        if not has_values(parameter):
            raise ArgumentError(
                argument,
                "must have weights with values",
                f"'{path}' without values, on the device {parameter.device}",
                "Call net.to_empty(device=...) and net.reset_parameters(), or load a state dict.",
            )


def check_weights(network: Module, *, argument: str) -> None:
    """Refuse a network with a weight that is computed from other parameters, as torch's pruning does.

    Raises:
        ArgumentError: the message names the weight and what it is computed from.
    """
    own = dict(network.named_parameters())
    for path, _ in network.geometries():
        if path in own:
            continue
        place, _, name = path.rpartition(".")
        inside = network.get_submodule(place)
        others = sorted(f"{place}.{each}".lstrip(".") for each in _sources_of(inside, name))
        seen = " and ".join(f"'{each}'" for each in others) or "no parameter"
        raise ArgumentError(
            argument,
            f"must have '{path}' as a parameter",
            f"{seen} in its place",
            "Call torch's prune.remove or parametrize.remove_parametrizations first, and project the weight onto its "
            "manifold.",
        )


def _sources_of(module: nn.Module, name: str) -> list[str]:
    """The parameters that stand in for the weight `name` of `module`."""
    return [each for each, _ in module.named_parameters() if name in each or "original" in each]

"""The door of everything that takes a network: what comes in is looked through and checked here."""

from __future__ import annotations

from torch import nn

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import WEIGHTED, Adapted, Composed, Weighted
from modular_manifolds.nn.module import Module, check_module
from modular_manifolds.nn.sharing import refuse_shared, refuse_shared_weights
from modular_manifolds.nn.tracing import has_values
from modular_manifolds.wrappers import unwrapped


def check_network(net: object, *, argument: str) -> Weighted:
    """Give back the network inside torch's wrappers, each weight at one place and with its geometry.

    Args:
        net: the network, of any class that is `Weighted`.
        argument: the name that the caller wrote, for errors.

    Raises:
        ArgumentError: `net` is not `Weighted`; the message names what is missing.
        SharedWeightError: a weight stands at two places.
    """
    network = unwrapped(net)
    if isinstance(network, type) or not isinstance(network, Weighted):
        lacks = [f"{name}()" for name in WEIGHTED if not hasattr(network, name)]
        if isinstance(network, type) or not hasattr(network, "geometries"):
            check_module(network, argument=argument)
        raise ArgumentError(
            argument,
            "must have named weights, their geometries and a budget",
            f"{type(network).__name__} without {' and '.join(lacks)}",
            "Write the missing methods as modular_manifolds.nn.composed.Weighted describes them.",
        )
    if isinstance(network, nn.Module):
        refuse_shared_weights(network)
    else:
        refuse_shared(network.named_parameters())
    return network


def check_composed(net: object, *, argument: str) -> Composed:
    """Give back the network inside torch's wrappers, if bounds on its function can be told from its composition.

    Raises:
        ArgumentError: `net` is not `Composed`, or not a `torch.nn.Module`.
        SharedWeightError: a weight stands at two places.
    """
    network = check_network(net, argument=argument)
    if isinstance(network, Composed) and isinstance(network, nn.Module):
        return network
    remedy = "mm.budget and mm.conditioning need none. For this report, declare the network with mm.Linear, mm.ReLU and >>"
    if isinstance(network, Composed):
        raise ArgumentError(
            argument,
            "must be a torch.nn.Module, of which a copy is examined in float64",
            type(network).__name__,
            "Hold the weights in a torch.nn.Module that has these methods.",
        )
    raise ArgumentError(
        argument,
        "needs the tree of the network's composition, from which bounds on its function follow",
        f"{type(network).__name__}, which has weights and no tree",
        remedy
        + ", or give it a method tree() as modular_manifolds.nn.composed.Composed describes it.",
    )


def check_declared(net: object, *, argument: str) -> Module:
    """Give back the network of this library's modules inside torch's wrappers, each weight at one place.

    Raises:
        ArgumentError: `net` is no module of this library.
        SharedWeightError: a weight stands at two places.
    """
    network = check_module(net, argument=argument)
    refuse_shared_weights(network)
    return network


def check_values(network: Weighted, *, argument: str) -> None:
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


def check_weights(network: Weighted, *, argument: str) -> None:
    """Refuse a network with a weight that is computed from other parameters, as torch's pruning does.

    Raises:
        ArgumentError: the message names the weight and what it is computed from.
    """
    own = dict(network.named_parameters())
    pieces = network.pieces() if isinstance(network, Adapted) else {}
    for path, _ in network.geometries():
        stored = pieces[path][0] if path in pieces else path
        if stored in own:
            continue
        place, _, name = stored.rpartition(".")
        others: list[str] = []
        if isinstance(network, nn.Module):
            inside = network.get_submodule(place)
            others = sorted(f"{place}.{each}".lstrip(".") for each in _sources_of(inside, name))
        seen = " and ".join(f"'{each}'" for each in others) or "no parameter"
        raise ArgumentError(
            argument,
            f"must have '{stored}' as a parameter",
            f"{seen} in its place",
            "Call torch's prune.remove or parametrize.remove_parametrizations first, and project the weight onto its "
            "manifold.",
        )


def _sources_of(module: nn.Module, name: str) -> list[str]:
    """The parameters that stand in for the weight `name` of `module`."""
    return [each for each, _ in module.named_parameters() if name in each or "original" in each]

"""Checks of network arguments: wrappers are removed, and missing methods, shared weights and values are reported."""

from __future__ import annotations

from torch import nn

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import WEIGHTED, Adapted, Composed, Weighted
from modular_manifolds.nn.module import Module, check_module
from modular_manifolds.nn.sharing import refuse_shared, refuse_shared_weights
from modular_manifolds.nn.tracing import has_values
from modular_manifolds.wrappers import unwrapped


def check_network(net: object, *, argument: str) -> Weighted:
    """Return the network inside torch's wrappers, or refuse it if it is not `Weighted` or shares weights.

    Args:
        net: the network, of any class that is `Weighted`.
        argument: the name that the caller wrote, for errors.

    Raises:
        ArgumentError: `net` is not `Weighted`; the message names the missing methods.
        SharedWeightError: a weight occurs twice.
    """
    network = unwrapped(net)
    if isinstance(network, type) or not isinstance(network, Weighted):
        missing = [f"{name}()" for name in WEIGHTED if not hasattr(network, name)]
        if isinstance(network, type) or not hasattr(network, "geometries"):
            check_module(network, argument=argument)
        raise ArgumentError(
            argument,
            "must have named weights, their geometries and a budget",
            f"{type(network).__name__} without {' and '.join(missing)}",
            "Write the missing methods as modular_manifolds.nn.composed.Weighted describes them.",
        )
    if isinstance(network, nn.Module):
        refuse_shared_weights(network)
    else:
        refuse_shared(network.named_parameters())
    return network


def check_composed(net: object, *, argument: str) -> Composed:
    """Return the network inside torch's wrappers, or refuse it if it is not a `Composed` torch module.

    Raises:
        ArgumentError: `net` is not `Composed`, or not a `torch.nn.Module`.
        SharedWeightError: a weight occurs twice.
    """
    network = check_network(net, argument=argument)
    if isinstance(network, Composed) and isinstance(network, nn.Module):
        return network
    remedy = "mm.budget and mm.conditioning need no tree. For this report, declare the network with mm.Linear, mm.ReLU and >>"
    if isinstance(network, Composed):
        raise ArgumentError(
            argument,
            "must be a torch.nn.Module, because a copy is examined in float64",
            type(network).__name__,
            "Hold the weights in a torch.nn.Module that has these methods.",
        )
    raise ArgumentError(
        argument,
        "needs the tree of the network's composition, from which bounds on its function follow",
        f"{type(network).__name__}, which has weights but no tree",
        remedy
        + ", or give it a method tree() as modular_manifolds.nn.composed.Composed describes it.",
    )


def check_declared(net: object, *, argument: str) -> Module:
    """Return the `Module` inside torch's wrappers, or refuse it.

    Raises:
        ArgumentError: `net` is not a `Module`.
        SharedWeightError: a weight occurs twice.
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
    """Refuse a network with a weight that is computed from other parameters, as in torch's pruning.

    Raises:
        ArgumentError: the message names the weight and the parameters that it is computed from.
    """
    parameters = dict(network.named_parameters())
    pieces = network.pieces() if isinstance(network, Adapted) else {}
    for path, _ in network.geometries():
        stored = pieces[path][0] if path in pieces else path
        if stored in parameters:
            continue
        module_path, _, name = stored.rpartition(".")
        sources: list[str] = []
        if isinstance(network, nn.Module):
            module = network.get_submodule(module_path)
            sources = sorted(
                f"{module_path}.{each}".lstrip(".") for each in _sources_of(module, name)
            )
        seen = " and ".join(f"'{each}'" for each in sources) or "no parameter"
        raise ArgumentError(
            argument,
            f"must have '{stored}' as a parameter",
            f"{seen} instead",
            "Call torch's prune.remove or parametrize.remove_parametrizations first, and project the weight onto its "
            "manifold.",
        )


def _sources_of(module: nn.Module, name: str) -> list[str]:
    """The parameters from which `module` computes its weight `name`."""
    return [each for each, _ in module.named_parameters() if name in each or "original" in each]

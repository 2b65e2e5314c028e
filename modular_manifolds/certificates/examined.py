"""The door of every report: a copy of the network in float64, in surroundings that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from modular_manifolds.composition.tree import Tree
from modular_manifolds.linalg.snapshot import device_of, plain_surroundings, snapshot
from modular_manifolds.nn.composed import Composed
from modular_manifolds.nn.network import check_composed, check_values


@dataclass(frozen=True)
class Examined:
    """A network that a report is about.

    Args:
        network: a copy in float64 and in evaluation mode, without hooks and gradients: what is measured.
        tree: its composition, for what is measured leaf by leaf.
        bounded: the composition in the mode that the network was in: what is bounded. Dropout in training has
            a larger slope than in evaluation.
        dtype: the dtype in which the network itself computes.
    """

    network: nn.Module
    tree: Tree
    bounded: Tree
    dtype: torch.dtype


@contextmanager
def examined(net: Composed, *, argument: str) -> Iterator[Examined]:
    """Examine a network as it stands; the caller's network and settings stay as they are.

    Args:
        net: the network.
        argument: how the caller wrote the network, for error messages.

    Raises:
        ArgumentError: `net` is not `Composed`, a weight is complex or has no values yet, or a
            transform of `torch.func` is under way.
        NonFiniteError: a weight holds NaN or infinity.
    """
    checked = check_composed(net, argument=argument)
    check_values(checked, argument=argument)
    module = cast("nn.Module", checked)
    default = torch.get_default_dtype()
    with plain_surroundings(device_of(module)):
        network = snapshot(module)
        dtype = dtype_of(network, default)
        network.double()
        bounded = _in_mode_of(module, network)
        tree = cast("Composed", network).tree()
        other = tree if bounded is network else cast("Composed", bounded).tree()
        yield Examined(network, tree, other, dtype)


def dtype_of(network: nn.Module, default: torch.dtype) -> torch.dtype:
    """The coarsest dtype among the weights; the default without weights."""
    types = {parameter.dtype for parameter in network.parameters()} or {default}
    return max(types, key=lambda each: torch.finfo(each).eps)


def _in_mode_of(net: nn.Module, network: nn.Module) -> nn.Module:
    """`network` with each module in the mode that it has in `net`; the two share their tensors."""
    modes = {path for path, module in net.named_modules() if module.training}
    if not modes:
        return network
    others: dict[nn.Module, nn.Module] = {
        module: type(module).__new__(type(module)) for module in network.modules()
    }
    for path, module in network.named_modules():
        parts = {name: part and others[part] for name, part in vars(module)["_modules"].items()}
        vars(others[module]).update(vars(module), _modules=parts, training=path in modes)
    return others[network]

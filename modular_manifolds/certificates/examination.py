"""The start of every report: a float64 copy of the network, independent of torch's global settings."""

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
class Examination:
    """A copy of a network for measurements and bounds.

    Args:
        network: a copy for measurements, in float64 and evaluation mode, without hooks and gradients.
        tree: the composition of the copy, for measurements at each leaf.
        bounded: the composition in the network's own mode, for bounds. Dropout has a larger slope in training mode.
        dtype: the dtype of the original network.
    """

    network: nn.Module
    tree: Tree
    bounded: Tree
    dtype: torch.dtype


@contextmanager
def examine(net: Composed, *, argument: str) -> Iterator[Examination]:
    """Copy a network for a report. The caller's network and torch's settings do not change.

    Args:
        net: the network.
        argument: the caller's name of the network, for error messages.

    Raises:
        ArgumentError: `net` is not `Composed`, a weight is complex or has no values yet, or a
            transform of `torch.func` is active.
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
        bounded_tree = tree if bounded is network else cast("Composed", bounded).tree()
        yield Examination(network, tree, bounded_tree, dtype)


def dtype_of(network: nn.Module, default: torch.dtype) -> torch.dtype:
    """The coarsest dtype of the weights; the default if there are none."""
    types = {parameter.dtype for parameter in network.parameters()} or {default}
    return max(types, key=lambda each: torch.finfo(each).eps)


def _in_mode_of(net: nn.Module, network: nn.Module) -> nn.Module:
    """A copy of `network` that shares its tensors, with each module in its mode of `net`."""
    modes = {path for path, module in net.named_modules() if module.training}
    if not modes:
        return network
    copies: dict[nn.Module, nn.Module] = {
        module: type(module).__new__(type(module)) for module in network.modules()
    }
    for path, module in network.named_modules():
        parts = {name: part and copies[part] for name, part in vars(module)["_modules"].items()}
        vars(copies[module]).update(vars(module), _modules=parts, training=path in modes)
    return copies[network]

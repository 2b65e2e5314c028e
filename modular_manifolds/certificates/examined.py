"""The door of every report: a copy of the network in float64, in surroundings that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from modular_manifolds.certificates.forward_error import dtype_of
from modular_manifolds.linalg.snapshot import device_of, plain_surroundings, snapshot
from modular_manifolds.nn.module import Module
from modular_manifolds.nn.network import check_network, check_values


@dataclass(frozen=True)
class Examined:
    """A network that a report is about.

    Args:
        network: a copy in float64 and in evaluation mode, without hooks and gradients: what is measured.
        bounded: the same weights in the mode that the network was in: what is bounded. Dropout in training has
            a larger slope than in evaluation.
        dtype: the dtype in which the network itself computes.
    """

    network: Module
    bounded: Module
    dtype: torch.dtype


@contextmanager
def examined(net: Module, *, argument: str) -> Iterator[Examined]:
    """Examine a network as it stands; the caller's network and settings stay as they are.

    Args:
        net: the network.
        argument: how the caller wrote the network, for error messages.

    Raises:
        ArgumentError: `net` is not a module of this library, a weight is complex or has no values yet, or a
        transform of `torch.func` is under way. NonFiniteError: a weight holds NaN or infinity.
    """
    net = check_network(net, argument=argument)
    check_values(net, argument=argument)
    default = torch.get_default_dtype()
    with plain_surroundings(device_of(net)):
        network = snapshot(net)
        dtype = dtype_of(network) if next(network.parameters(), None) is not None else default
        network.double()
        yield Examined(network, _in_mode_of(net, network), dtype)


def _in_mode_of(net: Module, network: Module) -> Module:
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
    return cast("Module", others[network])

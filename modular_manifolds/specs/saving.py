"""A network in one file: its weights, and the specification that builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, CheckpointError
from modular_manifolds.nn import Module
from modular_manifolds.nn.network import check_network, check_values, check_weights
from modular_manifolds.specs.archive import read_archive, write_archive
from modular_manifolds.specs.network import NetworkSpec

KIND: Final = "network"


def save(net: Module, path: str | Path) -> None:
    """Write `net` to a safetensors file with its specification in the metadata.

    `path` holds the old file or the whole new one at any time. `load` gives back the same weights, bit
    for bit and in their dtype, and the same tree.

    Raises:
        SpecError: the network holds a class that is not of this library. CheckpointError: the file cannot be
        written.
    """
    network = check_network(net, argument="save(net)")
    check_weights(network, argument="save(net)")
    check_values(network, argument="save(net)")
    spec = NetworkSpec.from_module(network)
    write_archive(path, network.state_dict(), kind=KIND, content=spec.model_dump(mode="json"))


def load(path: str | Path) -> Module:
    """Read a network that `save` wrote, on the CPU; nothing is unpickled and nothing random is used up.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    tensors, content = read_archive(path, kind=KIND)
    try:
        net = NetworkSpec.model_validate(content).build_aside()
    except ArgumentError as error:
        raise CheckpointError(
            f"{path}: {error.argument}", error.rule, error.seen, error.remedy
        ) from None
    built = net.state_dict()
    _check_fit(path, tensors, built)
    # In the memory layout of a network just built: another one would round products differently.
    laid_out = {
        name: torch.empty_like(built[name], dtype=each.dtype).copy_(each)
        for name, each in tensors.items()
    }
    net.load_state_dict(laid_out, assign=True)
    return net


def _check_fit(path: str | Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in sorted(found.keys() ^ wanted.keys()):
        seen = "one that the network has not" if name in found else "nothing"
        raise CheckpointError(f"{path}: '{name}'", "must be a tensor of the network", seen, REMEDY)
    for name, tensor in wanted.items():
        shape, given = tuple(tensor.shape), found[name]
        if tuple(given.shape) != shape or given.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: '{name}'",
                f"must be a {'real' if tensor.is_floating_point() else 'whole-number'} {shape}",
                f"{given.dtype} {tuple(given.shape)}",
                REMEDY,
            )


REMEDY: Final = "Its specification belongs to another network: save the network again."

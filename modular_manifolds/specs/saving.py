"""Saving a network in one file: its weights, and the specification that builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, CheckpointError
from modular_manifolds.nn import Module
from modular_manifolds.nn.network import check_declared, check_values, check_weights
from modular_manifolds.specs.archive import read_archive, read_header, write_archive
from modular_manifolds.specs.network import NetworkSpec
from modular_manifolds.specs.size import MAX_MODULES, TO_BUILD, Limits

KIND: Final = "network"


def save(net: Module, path: str | Path) -> None:
    """Write `net` to a safetensors file with its specification in the metadata.

    `path` always holds the old file or the complete new one. `load` restores the same weights, bit for bit and in their
    dtype, and the same tree.

    Raises:
        SpecError: the network holds a class that is not of this library.
        CheckpointError: the file cannot be written.
    """
    network = check_declared(net, argument="save(net)")
    check_weights(network, argument="save(net)")
    check_values(network, argument="save(net)")
    spec = NetworkSpec.from_module(network)
    write_archive(path, network.state_dict(), kind=KIND, content=spec.model_dump(mode="json"))


def load(
    path: str | Path, *, max_modules: int = MAX_MODULES, max_weights: int | None = None
) -> Module:
    """Read a network from a file of `save`, on the CPU, without unpickling and without random numbers.

    The sizes in the specification and in the file's header are checked before the network is built.

    Args:
        max_modules: the largest number of modules.
        max_weights: the largest number of weight entries; None for as many as fit into memory.

    Raises:
        CheckpointError: the file is missing or damaged, has another format, or describes a larger network.
    """
    header = read_header(path, kind=KIND)
    try:
        spec = NetworkSpec.model_validate(header.content)
        spec.check_size(Limits(max_modules, max_weights), bytes_each=TO_BUILD)
        expected = spec.build_without_weights().state_dict()
    except ArgumentError as error:
        raise CheckpointError(
            f"{path}: {error.argument}", error.rule, error.seen, error.remedy
        ) from None
    _check_fit(path, header.tensors, expected)
    tensors, _ = read_archive(path, kind=KIND)
    net = spec.build_aside()
    built = net.state_dict()
    # Use the memory layout of a newly built network, because another layout rounds products differently.
    laid_out = {
        name: torch.empty_like(built[name], dtype=each.dtype).copy_(each)
        for name, each in tensors.items()
    }
    net.load_state_dict(laid_out, assign=True)
    return net


def _check_fit(
    path: str | Path, found: dict[str, tuple[str, tuple[int, ...]]], wanted: dict[str, Tensor]
) -> None:
    for name in sorted(found.keys() ^ wanted.keys()):
        seen = "a tensor that the network does not have" if name in found else "nothing"
        raise CheckpointError(f"{path}: '{name}'", "must be a tensor of the network", seen, REMEDY)
    for name, tensor in wanted.items():
        shape, (dtype, given) = tuple(tensor.shape), found[name]
        if given != shape or (dtype in REAL) != tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: '{name}'",
                f"must be a {'real' if tensor.is_floating_point() else 'whole-number'} {shape}",
                f"{DTYPES.get(dtype, dtype)} {given}",
                REMEDY,
            )


REAL: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The dtypes of weights by their names in safetensors."""
DTYPES: Final = {**REAL, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}
REMEDY: Final = "Its specification belongs to another network: save the network again."

"""Sharded weights: DTensors, of which each process holds a part, and the refusal of flat parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final, TypeGuard

from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.boxes import box_of, cut

RULE: Final = "must hold weights in their own shapes, and FSDP's flat parameters have lost them"
REMEDY: Final = (
    "Shard the model by torch.distributed.fsdp.fully_shard, which keeps each weight as a DTensor."
)


def is_sharded(tensor: Any) -> TypeGuard[Any]:
    """Whether a tensor is a DTensor, also if each process holds all of it."""
    # A file that nobody has imported has made no tensor, and importing it takes long.
    kind = _known("torch.distributed.tensor", "DTensor")
    return kind is not None and isinstance(tensor, kind)


def local(tensor: Tensor) -> Tensor:
    """The entries that this process holds, in the tensor's memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def placements_of(tensor: Tensor) -> str:
    """The placements in words, for comparison and for errors."""
    if not is_sharded(tensor):
        return "as a whole tensor"
    mesh = tensor.device_mesh
    placed = ", ".join(map(str, tensor.placements))
    return f"as a DTensor ({placed}) on the mesh {mesh.mesh.tolist()}"


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all processes of its mesh if it is a DTensor; each of them must call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def write_whole_(tensor: Tensor, values: Tensor) -> None:
    """Write a whole tensor into a tensor, or into the shard of a DTensor, without communication."""
    if not is_sharded(tensor):
        tensor.copy_(values)
        return
    mesh, placements = tensor.device_mesh, tensor.placements
    shape, coordinate = tuple(mesh.mesh.shape), mesh.get_coordinate()
    box = box_of(tensor.shape, placements, shape, coordinate, name="")
    tensor.to_local().copy_(cut(values, box))


def refuse_flat(net: Any, *, argument: str) -> None:
    """Refuse a network in FullyShardedDataParallel, which flattens parameters.

    Args:
        net: a network or a plan; anything else passes.
        argument: the caller's name of the argument, for errors.

    Raises:
        ArgumentError: the message names the wrapper or the first such weight.
    """
    module = net if isinstance(net, nn.Module) else getattr(net, "model", None)
    if isinstance(module, nn.Module):
        kind = _known(
            "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"
        )
        for path, each in module.named_modules():
            if kind is not None and isinstance(each, kind):
                seen = (
                    f"FullyShardedDataParallel around '{path}'"
                    if path
                    else "FullyShardedDataParallel"
                )
                raise ArgumentError(argument, RULE, seen, REMEDY)
        refuse_flat_tensors(module.named_parameters(), argument=argument)


def refuse_flat_tensors(tensors: Iterable[tuple[str, Tensor]], *, argument: str) -> None:
    """Refuse named tensors of which one is a flat parameter.

    Raises:
        ArgumentError: the message names the first such tensor.
    """
    flat = _known("torch.distributed.fsdp._flat_param", "FlatParameter")
    if flat is None:
        return
    for name, tensor in tensors:
        if isinstance(tensor, flat):
            raise ArgumentError(argument, RULE, f"'{name}' as a flat parameter of FSDP", REMEDY)


def _known(file: str, name: str) -> type | None:
    return getattr(sys.modules.get(file), name, None)

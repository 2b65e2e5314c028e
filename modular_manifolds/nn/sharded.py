"""The refusal of weights of which this process holds a part: the direction of a matrix needs all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError

RULE: Final = "must hold whole weights, because the direction of a matrix needs all of it"
REMEDY: Final = (
    "Wrap the model in DistributedDataParallel, which shares out the solves; FSDP, FSDP2 and tensor parallelism are not "
    "supported."
)


def refuse_sharded(net: Any, *, argument: str) -> None:
    """Refuse a network with sharded weights: DTensors, or flat parameters of FullyShardedDataParallel.

    Args:
        net: a network or a plan; anything else passes.
        argument: the caller's name of the argument, for errors.

    Raises:
        ArgumentError: the message names the first such weight.
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
        refuse_sharded_tensors(module.named_parameters(), argument=argument)


def refuse_sharded_tensors(tensors: Iterable[tuple[str, Tensor]], *, argument: str) -> None:
    """Refuse named tensors of which one is a DTensor or a flat parameter.

    Raises:
        ArgumentError: the message names the first such tensor, and how it is placed.
    """
    # A file that nobody has imported has made no tensor, and importing it takes long.
    distributed = _known("torch.distributed.tensor", "DTensor")
    flat = _known("torch.distributed.fsdp._flat_param", "FlatParameter")
    if distributed is None and flat is None:
        return
    for name, tensor in tensors:
        if distributed is not None and isinstance(tensor, distributed):
            placements = ", ".join(map(str, getattr(tensor, "placements", ())))
            raise ArgumentError(argument, RULE, f"'{name}' as a DTensor, {placements}", REMEDY)
        if flat is not None and isinstance(tensor, flat):
            raise ArgumentError(argument, RULE, f"'{name}' as a flat parameter of FSDP", REMEDY)


def _known(file: str, name: str) -> type | None:
    return getattr(sys.modules.get(file), name, None)

"""The network of a run as its processes share it: whole copies, or shards."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modular_manifolds.nn import Module
from modular_manifolds.nn.sharded import is_sharded, whole, write_whole_
from modular_manifolds.training.processes import Processes


def shared(net: Module, processes: Processes) -> nn.Module:
    """The module whose backward pass averages the gradients of all processes; `net` itself for one process.

    Every process then has the weights of process 0. With `fsdp` the weights of `net` become DTensors, and each module in
    the network is gathered when it computes.
    """
    if processes.parallel == "none":
        return net
    if processes.parallel == "fsdp":
        return _sharded(net)
    device = next(net.parameters()).device
    return DistributedDataParallel(net, device_ids=None if device.type == "cpu" else [device])


def _sharded(net: Module) -> nn.Module:
    # Importing torch's sharding takes seconds.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with torch.no_grad():
        for each in (*net.parameters(), *net.buffers()):
            dist.broadcast(each, 0)
    device = next(net.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for child in net.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh, reshard_after_forward=True)
    # Otherwise the weights would stay gathered after an evaluation, and a checkpoint would not find the shards.
    fully_shard(net, mesh=mesh, reshard_after_forward=True)
    return net


def whole_state(net: nn.Module) -> dict[str, Tensor]:
    """The network's state dict with whole tensors. All processes of sharded weights must ask for it."""
    return {name: whole(each) for name, each in net.state_dict().items()}


@torch.no_grad()
def load_whole_(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole tensors, the same in every process, into a network with whole or sharded weights.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    own = net.state_dict()
    if not any(map(is_sharded, own.values())):
        net.load_state_dict(state)
        return
    for name in sorted(own.keys() | state.keys()):
        if name not in own or name not in state or own[name].shape != state[name].shape:
            raise RuntimeError(f"'{name}' is missing, too many, or of another shape")
        write_whole_(own[name], state[name])


def placed_state(
    optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Whole entries of an optimiser's state, the same in every process, sharded like the entries that it has.

    An optimiser without state, such as AdamW before its first step, places an entry like its parameter.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not any(map(is_sharded, parameters)):
        return state
    held = optimizer.state_dict()["state"]
    return {
        index: {
            key: _placed(value, held.get(index, {}).get(key, parameters[index]))
            for key, value in entries.items()
        }
        for index, entries in state.items()
    }


def _placed(value: Any, like: Any) -> Any:
    if not (isinstance(value, Tensor) and is_sharded(like) and value.shape == like.shape):
        return value
    placed = torch.zeros_like(like.detach(), dtype=value.dtype)
    write_whole_(placed, value)
    return placed


def settle_buckets(model: nn.Module, inputs: Tensor) -> None:
    """Run one backward pass whose gradients are thrown away. Random numbers are as if it had not been.

    DistributedDataParallel sorts its gradients anew after the first pass, and the order in which gloo adds depends on
    their places. Now all steps of a run have the same order, so a resumed run takes the same bits.
    """
    devices = [] if inputs.device.type == "cpu" else [inputs.device]
    with torch.random.fork_rng(devices):
        model(inputs).sum().backward()
    model.zero_grad()

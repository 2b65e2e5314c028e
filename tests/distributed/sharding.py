"""Models whose weights are DTensors, in every layout, and twins that compute their gradients from whole weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from trained import MODELS, backward_of

import modular_manifolds as mm


def world_mesh(*shape: int, names: tuple[str, ...] | None = None) -> DeviceMesh:
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def fsdp(model: nn.Module) -> None:
    """FSDP2, with one call for each child, as is usual."""
    mesh = world_mesh(dist.get_world_size())
    for each in model.children():
        if any(True for _ in each.parameters()):
            fully_shard(each, mesh=mesh)
    fully_shard(model, mesh=mesh)


def hsdp(model: nn.Module) -> None:
    """FSDP2 that replicates over one dimension of the mesh and shards over the other."""
    mesh = world_mesh(2, dist.get_world_size() // 2, names=("replicate", "shard"))
    fully_shard(model, mesh=mesh)


def tensor_parallel(model: nn.Module, mesh: DeviceMesh | None = None) -> None:
    """Matrices by rows and by columns in turn, and every fifth replicated. Vectors stay whole tensors."""
    mesh = mesh or world_mesh(dist.get_world_size())
    placements: list[Any] = [Shard(0), Shard(1), Shard(0), Shard(1), Replicate()]
    count = 0
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() > 1:
                place(module, name, mesh, placements[count % len(placements)])
                count += 1


def place(module: nn.Module, name: str, mesh: DeviceMesh, *placements: Any) -> None:
    """Replace a parameter of a module by a DTensor."""
    values = module.get_parameter(name).detach()
    module.register_parameter(name, nn.Parameter(distribute_tensor(values, mesh, placements)))


def fsdp_tensor_parallel(model: nn.Module) -> None:
    """FSDP2 over tensor parallelism, which makes strided shards."""
    mesh = world_mesh(2, dist.get_world_size() // 2, names=("dp", "tp"))
    tensor_parallel(model, mesh["tp"])
    fully_shard(model, mesh=mesh["dp"])


LAYOUTS: Final[dict[str, Callable[[nn.Module], None]]] = {
    "fsdp": fsdp,
    "hsdp": hsdp,
    "tp": tensor_parallel,
    "fsdp_tp": fsdp_tensor_parallel,
}


def model_and_plan(name: str) -> tuple[nn.Module, Any]:
    """A model, and the argument of its optimiser."""
    torch.manual_seed(0)
    model = MODELS[name]()
    return model, mm.adapt(model, progress=False) if name == "gpt2" else model


class Twin:
    """A whole copy of a model, whose gradients go into the shards of the model."""

    def __init__(self, model: nn.Module) -> None:
        self.whole = copy.deepcopy(model)

    def give_gradients(self, model: nn.Module, name: str) -> None:
        """Gradients of the whole batch at the present weights."""
        copies = dict(self.whole.named_parameters())
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                copies[path].copy_(full(parameter))
        backward_of(name, self.whole)
        for path, parameter in model.named_parameters():
            gradient = copies[path].grad
            parameter.grad = None if gradient is None else placed_like(parameter, gradient)


def placed_like(parameter: Tensor, values: Tensor) -> Tensor:
    """A whole tensor, the same on every process, in the placements of a parameter."""
    if not isinstance(parameter, DTensor):
        return values
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


def shard_of(tensor: Tensor) -> Tensor:
    """The entries that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    whole = tensor.detach()
    return (whole.full_tensor() if isinstance(whole, DTensor) else whole).clone()


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: full(each) for name, each in model.named_parameters()}


def full_state(opt: torch.optim.Optimizer) -> dict[str, Tensor]:
    held = opt.state_dict()["state"]
    return {f"{key} {entry}": full(each) for key in held for entry, each in held[key].items()}

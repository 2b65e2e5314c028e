"""DTensors as whole tensors, and the other way round."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor


def world_mesh(*shape: int, names: tuple[str, ...] | None = None) -> DeviceMesh:
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def placed_like(parameter: Tensor, values: Tensor) -> Tensor:
    """A whole tensor, the same on every process, in the placements of a parameter."""
    if not isinstance(parameter, DTensor):
        return values
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


def full(tensor: Tensor) -> Tensor:
    whole = tensor.detach()
    return (whole.full_tensor() if isinstance(whole, DTensor) else whole).clone()


def full_state(opt: torch.optim.Optimizer) -> dict[str, Tensor]:
    held = opt.state_dict()["state"]
    return {f"{key} {entry}": full(each) for key in held for entry, each in held[key].items()}

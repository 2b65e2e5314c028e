"""The state of sharded parameters: DTensors from construction on, so that torch.distributed.checkpoint reshards them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard, zeros

from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.fallback import MOMENTS
from modular_manifolds.optim.sharded.layout import Layout, layout_of
from modular_manifolds.optim.sharded.members import LOCAL, Member
from modular_manifolds.optim.weight import dual_shape, full_dtype
from modular_manifolds.solvers.base import Solver


def prepare_(
    state: dict[str, Any], member: Member, group: Mapping[str, Any], solver: str | Solver
) -> None:
    """Make missing entries of one parameter, and convert those whose dtype or device has changed.

    The keys are the same on every process. `momentum`, `master` and AdamW's moments are placed like the parameter. Duals
    and averages of units that lie in one shard too; other duals are split along their first dimension over all
    processes, and other averages are replicated.
    """
    parameter = member.parameter
    full = full_dtype(parameter)
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...] | None]] = {}
    if full is not parameter.dtype:
        wanted["master"] = full, None
    elif "master" in state:
        del state["master"]
    if not member.weights:
        wanted.update(dict.fromkeys(MOMENTS, (full, None)))
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    elif group["momentum"] > 0 or "momentum" in state:
        wanted["momentum"] = full, None
    for weight in member.weights:
        dual = dual_shape(weight, solver)
        if dual is not None:
            wanted[weight.key("dual")] = full, dual
        units = unit_shape(weight.shape, weight.geometry.coupled_dims)
        for key in map(weight.key, AVERAGES):
            if group["noise_damping"] or key in state:
                wanted[key] = torch.float64, units
    for key, (dtype, shape) in wanted.items():
        entry = state.get(key)
        if entry is None:
            state[key] = _new_entry(key, member, dtype, shape)
        elif entry.dtype is not dtype or entry.device != parameter.device:
            state[key] = entry.to(device=parameter.device, dtype=dtype)


def _new_entry(key: str, member: Member, dtype: torch.dtype, shape: tuple[int, ...] | None) -> Any:
    parameter = member.parameter
    if key == "master":
        return parameter.detach().to(dtype=dtype)
    if shape is None:
        return torch.zeros_like(parameter.detach(), dtype=dtype)
    mesh = parameter.device_mesh
    placements: Any
    if member.way is LOCAL:
        placements = parameter.placements
    elif key.startswith("dual"):
        placements = [Shard(0)] * mesh.ndim
    else:
        placements = [Replicate()] * mesh.ndim
    return zeros(*shape, dtype=dtype, device_mesh=mesh, placements=placements)


def shards_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries as tensors of this process: the shard of each DTensor, in its memory."""
    return {key: value.to_local() if is_sharded(value) else value for key, value in state.items()}


def layouts_of(state: Mapping[str, Any], member: Member) -> dict[str, Layout]:
    """The layout of each entry that is a DTensor."""
    return {
        key: layout_of(value, member.crew, name=f"{key} of {member.name}")
        for key, value in state.items()
        if is_sharded(value)
    }

"""Stand-ins: plain tensors in the place of DTensors, so that the steps of whole weights step shards too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.optim.groups import is_fallback
from modular_manifolds.optim.sharded.members import LOCAL, Member
from modular_manifolds.optim.weight import full_dtype

Group = Mapping[str, Any]


class LocalStandIn:
    """A tensor over the memory of this process's shard.

    Args:
        member: a member that is stepped locally.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self._shard: Tensor | None = None
        self.tensor = torch.empty(0)
        self.refresh()

    @property
    def moves(self) -> bool:
        """Whether a step may change the shard. AdamW counts its steps for empty shards too."""
        return not (self.member.weights and self.member.is_empty)

    def refresh(self) -> bool:
        """Follow the parameter; return whether its shard has moved in memory, as by `net.to(...)`."""
        shard = self.member.parameter.to_local()
        if shard is self._shard:
            return False
        self._shard = shard
        if _memory_of(shard) == _memory_of(self.tensor):
            return False
        self.tensor = shard.detach()
        return True


def _memory_of(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class WholeStandIn:
    """A whole tensor on the owner. It has memory during a step only.

    Args:
        member: a member that this process owns.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        parameter = member.parameter
        self.tensor = torch.empty(
            tuple(parameter.shape), dtype=full_dtype(parameter), device=parameter.device
        )
        self._bytes = self.tensor.untyped_storage().nbytes()
        self.state: dict[str, Tensor] = {}
        self.gradient = self.tensor
        self.release()

    def allocate(self, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        """Take memory for the point, the gradient, and state entries of these shapes."""
        self.tensor.untyped_storage().resize_(self._bytes)
        self.gradient = torch.empty_like(self.tensor)
        self.tensor.grad = None if self.member.parameter.grad is None else self.gradient
        device = self.tensor.device
        self.state = {
            key: torch.empty(shape, dtype=dtype, device=device)
            for key, (shape, dtype) in shapes.items()
        }

    def release(self) -> None:
        """Give the memory back until the next step."""
        self.tensor.untyped_storage().resize_(0)
        self.tensor.grad = None
        self.gradient, self.state = self.tensor, {}


def local_groups(
    groups: Sequence[Group],
    stand_ins: Mapping[tuple[int, int], LocalStandIn],
    members: Mapping[tuple[int, int], Member],
) -> list[dict[str, Any]]:
    """The groups of this process: whole parameters and local stand-ins, with the live settings of the real groups."""
    found: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        chosen: dict[int, tuple[Tensor, list[dict[str, Any]] | None]] = {}
        for place, parameter in enumerate(group["params"]):
            member = members.get((index, place))
            if member is None:
                chosen[place] = parameter, _pieces(group, place)
            elif member.way is LOCAL and (stand_in := stand_ins[index, place]).moves:
                pieces = [each.values() for each in member.local_pieces]
                chosen[place] = stand_in.tensor, pieces or _pieces(group, place)
        found.append(_with_params(group, chosen))
    return found


def owned_groups(
    groups: Sequence[Group], stand_ins: Iterable[WholeStandIn]
) -> list[dict[str, Any]]:
    """The groups of the whole stand-ins. Momentum is kept by shards, unless the settings need it at the owner."""
    chosen: list[dict[int, tuple[Tensor, list[dict[str, Any]] | None]]] = [{} for _ in groups]
    for each in stand_ins:
        group, place = each.member.group, each.member.place
        chosen[group][place] = each.tensor, _pieces(groups[group], place)
    found: list[dict[str, Any]] = []
    for group, own in zip(groups, chosen, strict=True):
        settings = {} if is_fallback(group) or travels_with_momentum(group) else WITHOUT_MOMENTUM
        found.append({**_with_params(group, own), **settings})
    return found


def groups_with(
    groups: Sequence[Group], chosen: Mapping[tuple[int, int], Tensor]
) -> list[dict[str, Any]]:
    """The groups with these whole matrices only, by group and place."""
    found: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        own = {
            place: (chosen[index, place], None)
            for place in range(len(group["params"]))
            if (index, place) in chosen
        }
        found.append(_with_params(group, own))
    return found


WITHOUT_MOMENTUM = {"momentum": 0.0, "nesterov": False}


def travels_with_momentum(group: Group) -> bool:
    """Whether the owner needs the gradients and the momenta, and not only the direction that follows from them."""
    return bool(group["noise_damping"] or group["tangent_momentum"])


def _pieces(group: Group, place: int) -> list[dict[str, Any]] | None:
    pieces = group.get("pieces")
    return pieces[place] if pieces else None


def _with_params(
    group: Group, chosen: Mapping[int, tuple[Tensor, list[dict[str, Any]] | None]]
) -> dict[str, Any]:
    """The group with these parameters only, by their places."""
    own = dict(group)
    own["params"] = [tensor for tensor, _ in chosen.values()]
    own["shapes"] = [list(tensor.shape) for tensor, _ in chosen.values()]
    own["param_names"] = [group["param_names"][place] for place in chosen]
    if "shares" in group:
        own["shares"] = [group["shares"][place] for place in chosen]
    if group.get("pieces"):
        own["pieces"] = [pieces for _, pieces in chosen.values()]
    return own

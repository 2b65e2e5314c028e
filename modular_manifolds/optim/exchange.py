"""Exchange: each process sends the weights that it has solved, and receives those of the others, in one packed buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim import foreach
from modular_manifolds.optim.agreement import Agreement
from modular_manifolds.optim.collectives import GATHERING, together
from modular_manifolds.optim.fallback import FallbackWeight
from modular_manifolds.optim.placement import Placement, place
from modular_manifolds.optim.state import full_precision_weight
from modular_manifolds.optim.weight import PieceState, Weight, dual_shape, full_dtype
from modular_manifolds.solvers.base import Solver
from modular_manifolds.wrappers import replicas_of

ALL_GATHER: Final[Any] = next(
    (
        getattr(dist, name)
        for name in ("all_gather_single", "all_gather_into_tensor")
        if hasattr(dist, name)
    ),
    None,
)
"""torch's gathering of tensors of one size into one tensor: torch 2.13 gave it a new name. None in a torch without distributed."""


@dataclass(frozen=True)
class Slot:
    """The place of a weight in the buffer of its owner: its point, then its dual.

    Args:
        weight: the weight.
        owner: the rank that fills it.
        dtype: chooses the buffer; that of the point in full precision.
        start: the first number of the point.
        middle: the first number of the dual.
        stop: the number after the last.
        dual_shape: None without a dual.
    """

    weight: Weight
    owner: int
    dtype: torch.dtype
    start: int
    middle: int
    stop: int
    dual_shape: tuple[int, ...] | None

    def point(self, buffer: Tensor) -> Tensor:
        """The point, in the buffer's memory."""
        return buffer[self.start : self.middle].view(self.weight.shape)

    def dual(self, buffer: Tensor) -> Tensor | None:
        """The dual, in the buffer's memory."""
        if self.dual_shape is None:
            return None
        return buffer[self.middle : self.stop].view(self.dual_shape)


class Exchange:
    """The processes that average their gradients, and the buffers through which they share their solves.

    Every process packs all of its weights at every step, moved or not, so the size of the buffers depends on the weights
    alone. Every process writes the numbers that the owner has sent, so the weights are equal bit for bit.

    Args:
        group: the process group over which gradients are averaged.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.processes = dist.get_world_size(group)
        self.placement = Placement(self.processes, ())
        self.agreement = Agreement(group, (), "", torch.device("cpu"))
        self.device = torch.device("cpu")
        self._agreed: tuple[list[str], str, torch.device] | None = None
        self._slots: dict[str, Slot] = {}
        self._sizes: dict[torch.dtype, int] = {}
        self._sent: dict[torch.dtype, Tensor] = {}
        self._received: dict[torch.dtype, Tensor] = {}
        self._packed: set[str] = set()

    def lay_out(
        self, weights: Sequence[Weight], fallback: Sequence[FallbackWeight], *, solver: str | Solver
    ) -> None:
        """Deal out the solves, and give each weight its place in the buffers. All processes find the same."""
        names = [*(each.name for each in weights), *(each.name for each in fallback)]
        parameters = [each.parameter for each in (*weights, *fallback)]
        self.device = parameters[0].device
        real = [each for each in weights if each.parameter.is_floating_point()]
        self.placement = place(real, self.processes, solver=solver)
        description = repr(
            (
                [
                    (each.name, each.shape, full_dtype(each.parameter), each.geometry)
                    for each in real
                ],
                [(each.name, tuple(each.parameter.shape)) for each in fallback],
            )
        )
        agreed = (names, description, self.device)
        if agreed != self._agreed:
            self.agreement, self._agreed = Agreement(self._group, *agreed), agreed
        filled: dict[torch.dtype, list[int]] = {}
        self._slots.clear()
        for each in real:
            owner = self.placement.owners.get(each.name)
            if owner is None:
                continue
            dtype, dual = full_dtype(each.parameter), dual_shape(each, solver)
            used = filled.setdefault(dtype, [0] * self.processes)
            start = used[owner]
            middle = start + math.prod(each.shape)
            stop = used[owner] = middle + (0 if dual is None else math.prod(dual))
            self._slots[each.name] = Slot(each, owner, dtype, start, middle, stop, dual)
        self._sizes = {dtype: max(used) for dtype, used in filled.items()}

    def pack(
        self,
        weights: Sequence[Weight],
        points: Sequence[Tensor],
        duals: Sequence[Tensor] | None,
    ) -> None:
        """Put solved weights of this process into the buffers.

        Args:
            weights: weights of one dtype in full precision.
            points: their points, in their logical shapes.
            duals: their duals; None for solvers without them.
        """
        if not self._sent:
            self._sent = {
                dtype: torch.zeros(size, dtype=dtype, device=self.device)
                for dtype, size in self._sizes.items()
            }
        slots = [self._slots[each.name] for each in weights]
        foreach.copy_([each.point(self._sent[each.dtype]) for each in slots], points)
        targets = [each.dual(self._sent[each.dtype]) for each in slots]
        if duals is not None:
            foreach.copy_([each for each in targets if each is not None], duals)
        self._packed.update(each.name for each in weights)

    def gather(self, state: Any) -> None:
        """Exchange the buffers. Weights of this process that were not packed are sent as they are."""
        for name, slot in self._slots.items():
            if slot.owner == self.rank and name not in self._packed:
                entries = slot.weight.entries(state[slot.weight.parameter])
                point, dual = current(slot.weight, entries)
                self.pack([slot.weight], [point], None if dual is None else [dual])
        for dtype, size in self._sizes.items():
            sent = self._sent.get(dtype)
            if sent is None:
                sent = torch.zeros(size, dtype=dtype, device=self.device)
            received = sent.new_empty((self.processes, size))
            self._all_gather(received, sent)
            self._received[dtype] = received
        self._sent = {}
        self._packed.clear()

    def _all_gather(self, received: Tensor, sent: Tensor) -> None:
        together(GATHERING, lambda: ALL_GATHER(received.view(-1), sent, group=self._group))

    def point(self, weight: Weight) -> Tensor:
        """The point that the weight's owner has sent."""
        slot = self._slots[weight.name]
        return slot.point(self._received[slot.dtype][slot.owner])

    def dual(self, weight: Weight) -> Tensor | None:
        """The dual that the weight's owner has sent; None if the solver has none."""
        slot = self._slots[weight.name]
        return slot.dual(self._received[slot.dtype][slot.owner])

    def release(self) -> None:
        """Let go of the buffers until the next step."""
        self._received = {}


def exchange_for(
    params: Any, owner: Any, devices: Iterable[torch.device]
) -> tuple[Exchange | None, int]:
    """The exchange that an optimiser needs, and the number of processes that average its gradients.

    There is none for one process, for weights on several devices, and if `owner` is `"replicate"`.

    Raises:
        ArgumentError: `owner` is not `"auto"`, `"replicate"` or a process group.
    """
    if isinstance(owner, str) and owner in ("auto", "replicate"):
        group = replicas_of(params).group
    elif dist.is_available() and isinstance(owner, dist.ProcessGroup):
        group = owner
    else:
        raise ArgumentError(
            "SteepestDescent(owner)",
            "must be 'auto', 'replicate' or a process group for weights that are not sharded",
            repr(owner),
            "Leave it at 'auto': the process group of DistributedDataParallel is found.",
        )
    processes = 1 if group is None else dist.get_world_size(group)
    if processes == 1 or owner == "replicate" or len(set(devices)) > 1:
        return None, processes
    return Exchange(group), processes


def current(weight: Weight, entries: dict[str, Any] | PieceState) -> tuple[Tensor, Tensor | None]:
    """The point of a weight in full precision, and the dual of its last solve."""
    point = full_precision_weight(weight.read(weight.parameter), entries.get("master"))
    return point, entries.get("dual")

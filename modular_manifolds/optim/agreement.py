"""Agreement: all processes take a step or none does, decided by one small reduction before anything changes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.optim.collectives import AGREEMENT, have_equal_sizes, together
from modular_manifolds.optim.gradients import NONFINITE_REMEDY, gradient_argument

DESCRIPTION: Final = "the weights"
"""The entry of the conflicts after all names: names, shapes and geometries."""

EARLY: Final = "early messages"
"""The last entry of the conflicts, if gradients are sent before the step: whether they are still those of the step."""


class Agreement:
    """The flags of a step, reduced to their maxima over all processes.

    For each weight there is a flag of a gradient that is not finite, a flag of a weight that is stepped, and the negative
    of the latter: both maxima add up to zero only if all processes agree. So do a checksum of the weights' description and
    its negative. The number of flags is fixed when the optimiser is made, and does not depend on data.

    Args:
        group: the process group.
        names: all weights, stepped or not, in an order that is the same on every process.
        description: whatever has to be the same on every process.
        device: the device of the weights.
    """

    def __init__(
        self, group: Any, names: Sequence[str], description: str, device: torch.device
    ) -> None:
        self._group = group
        self._device = device
        self.names = [*names, DESCRIPTION]
        self._index = {name: i for i, name in enumerate(names)}
        self._arguments = {gradient_argument(name): i for i, name in enumerate(names)}
        self._checksum = zlib.crc32(description.encode()) >> 1
        self._has_equal_sizes = False
        self._stepped = torch.empty(0)
        self._places = torch.empty(0)

    def follow(self, stepped: Sequence[str]) -> None:
        """Take the names of the weights that this process steps, in the order of its report."""
        members = set(stepped)
        present = [int(name in members) for name in self._index]
        both = [*present, self._checksum, *(-each for each in present), -self._checksum]
        places = [self._index[name] for name in stepped]
        self._stepped = torch.tensor(both, dtype=torch.int32, device=self._device)
        self._places = torch.tensor(places, dtype=torch.int64, device=self._device)

    def on_host(self, error: NonFiniteError | None) -> NonFiniteError | None:
        """The error of this or another process; None if all processes can step.

        Raises:
            ArgumentError: the processes do not step the same weights. It is raised on all of them.
        """
        nonfinite = torch.zeros(len(self._index), dtype=torch.int32, device=self._device)
        if error is not None:
            nonfinite[self._arguments[error.argument]] = 1
        _, found, conflicts = self._reduced(nonfinite.new_zeros(1), nonfinite)
        differing = [
            name for name, each in zip(self.names, conflicts.tolist(), strict=True) if each
        ]
        if differing:
            raise disagreement(differing)
        if error is not None:
            return error
        for name, each in zip(self._index, found.tolist(), strict=True):
            if each:
                seen = "NaN or infinity on another process"
                return NonFiniteError(
                    gradient_argument(name), "must be finite", seen, NONFINITE_REMEDY
                )
        return None

    def on_device(self, ok: Tensor, finite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether all processes can step, and the counts that the report adds. No number is read.

        Args:
            ok: whether this process can step, without dimensions.
            finite: whether the gradient of each stepped weight is finite.

        Returns:
            Whether the step is taken; the stepped weights with a gradient that is not finite on some process; and
            the names on which the processes do not agree, in the order of `names`.
        """
        flags = torch.zeros(len(self._index), dtype=torch.int32, device=ok.device)
        flags.index_copy_(0, self._places, torch.logical_not(finite).to(torch.int32))
        cancelled = torch.logical_not(ok).to(torch.int32).reshape(1)
        cancelled, nonfinite, conflicts = self._reduced(cancelled, flags)
        ok = torch.logical_not((cancelled > 0).any() | conflicts.any())
        return ok, nonfinite.index_select(0, self._places), conflicts

    def _reduced(self, cancelled: Tensor, nonfinite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flags = torch.cat((cancelled, nonfinite, self._stepped))
        self._has_equal_sizes = self._has_equal_sizes or compare_sizes(flags, self._group)
        together(AGREEMENT, lambda: dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group))
        count = len(self.names)
        cancelled, nonfinite, most, least = flags.split([1, count - 1, count, count])
        return cancelled, nonfinite, (most + least) != 0


def compare_sizes(flags: Tensor, group: Any) -> bool:
    """Whether all processes of a group have so many flags. A compiled step does not ask.

    Raises:
        ArgumentError: they have other numbers of weights. It is raised on all of them.
    """
    if torch.compiler.is_compiling():
        return False
    if not have_equal_sizes(flags.numel(), group, flags.device):
        raise disagreement([DESCRIPTION])
    return True


def disagreement(names: Iterable[str]) -> ArgumentError:
    """The error of processes that do not step the same weights."""
    name = next(iter(names))
    if name == DESCRIPTION:
        return ArgumentError(
            "SteepestDescent(params)",
            "must be built on the same weights, shapes and geometries in every process",
            "others in another process",
            "Adapt the model from the same seed and batch everywhere, or write the plan in one process and read it in the "
            "others with from_json. Stages of a pipeline need a process group for each stage.",
        )
    if name == EARLY:
        return ArgumentError(
            "the gradients of SteepestDescent(overlap)",
            "must stay as they are from the backward pass that sends them to the step",
            "gradients, weights, state or settings that have changed in between, in some process",
            "Pass overlap=k if each step has k backward passes, call opt.zero_grad() in every process to give gradients up, "
            "or leave overlap out if gradients are clipped.",
        )
    return ArgumentError(
        gradient_argument(name),
        "must exist, with a share above 0, in every process or in none",
        "a gradient in some processes only",
        "Run the same backward passes in every process. With DistributedDataParallel pass find_unused_parameters=True, and "
        "leave no_sync() before the last one.",
    )

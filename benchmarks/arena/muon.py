"""torch's Muon on the hidden matrices of any model: fused projections by parts, convolutions as (out, in · kernel)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from torch import Tensor, nn

from arena.hidden import hidden_rows, matrix_of
from modular_manifolds.training.muon import Muon


class HiddenMuon(Muon):
    """`torch.optim.Muon` on the hidden matrices of a model.

    Queries, keys and values of a fused weight are three matrices, each with all of its heads. Every matrix is a view of the
    model's weight.

    Args:
        model: the model.
        settings: those of `torch.optim.Muon`.
    """

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        parameters = dict(model.named_parameters())
        self._pieces = [(row, parameters[row.parameter]) for row in hidden_rows(model)]
        matrices = [matrix_of(row, weight.detach()) for row, weight in self._pieces]
        for matrix, (_, weight) in zip(matrices, self._pieces, strict=True):
            assert matrix.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
        super().__init__(matrices, **settings)

    @property
    def stepped(self) -> set[Tensor]:
        """The model's weights that this optimiser steps."""
        return {weight for _, weight in self._pieces}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of torch's, with the gradients of the model's weights."""
        for matrix, (row, weight) in zip(self.param_groups[0]["params"], self._pieces, strict=True):
            matrix.grad = None if weight.grad is None else matrix_of(row, weight.grad)
        return super().step(closure)

"""Tangents and retractions that read numbers, each as one operator of a compiled graph."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from modular_manifolds.linalg.compilers import constant, number_in


class Decides(Protocol):
    """A manifold, whose methods read numbers."""

    def tangent(self, point: Tensor, vector: Tensor) -> Tensor: ...

    def retract(self, point: Tensor, step: Tensor) -> Tensor: ...


MANIFOLDS: Final[list[Decides]] = []
"""Every manifold in use by a compiled graph, which refers to it by its index."""


def as_operator(
    manifold: Decides, point: Tensor, vector: Tensor, method: Literal["tangent", "retract"]
) -> Tensor:
    """The method of the manifold, as one operator with the same result as in eager mode."""
    return _on_host(point, vector, _number_of(manifold), method)


@constant
def _number_of(manifold: Decides) -> int:
    """The index of the manifold in `MANIFOLDS`. Equal manifolds have one index."""
    return number_in(MANIFOLDS, manifold)


@torch.library.custom_op("modular_manifolds::on_host", mutates_args=())
def _on_host(point: Tensor, vector: Tensor, number: int, method: str) -> Tensor:
    """`tangent` or `retract` of `MANIFOLDS[number]`."""
    call = getattr(MANIFOLDS[number], method)
    return call(point, vector).contiguous()


@_on_host.register_fake
def _(point: Tensor, vector: Tensor, number: int, method: str) -> Tensor:
    del number
    like = vector if method == "tangent" else point
    return torch.empty_like(like, memory_format=torch.contiguous_format)

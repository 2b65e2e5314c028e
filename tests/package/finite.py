"""Points of any size on every manifold, and checks of finite answers."""

from __future__ import annotations

import math

import cases
import torch
from hypothesis import settings
from hypothesis import strategies as st
from strategies import RADII, Room, laid_out, rooms, tensors
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.testing.check import at_most, separate_memory

KINDS = list(dict.fromkeys(type(manifold) for manifold in cases.MANIFOLDS))

examples = settings() if settings().max_examples >= 2000 else settings(max_examples=15)
"""A few by default; all that the profile `thorough` asks for."""


def of_radius(kind: type[mm.Manifold], radius: float) -> mm.Manifold:
    return kind() if kind is mm.Euclidean else kind(radius)  # pyright: ignore[reportCallIssue]


@st.composite
def manifolds(draw: st.DrawFn, kind: type[mm.Manifold], room: Room) -> mm.Manifold:
    del room
    return of_radius(kind, draw(st.sampled_from(RADII)))


@st.composite
def fitting_rooms(draw: st.DrawFn, kind: type[mm.Manifold]) -> Room:
    room = draw(rooms())
    if kind is mm.BalancedRows and room.shape[-1] == 1:
        return Room((*room.shape[:-1], 2), room.dtype)
    return room


@st.composite
def points(draw: st.DrawFn, manifold: mm.Manifold, room: Room) -> Tensor:
    """A point of the manifold, zero, a stack with one zero among points, or a tensor far off the manifold."""
    kind = draw(st.sampled_from(["point", "point", "zero", "partly zero", "anything"]))
    if kind == "anything":
        return draw(tensors(room))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 50)))
    point = manifold.random(room.shape, generator=generator, dtype=room.dtype)
    if kind == "zero":
        point = torch.zeros_like(point)
    elif kind == "partly zero":
        point[0] = 0.0
    return laid_out(point, draw(st.sampled_from(["contiguous", "transposed", "requires grad"])))


def rounding(room: Room) -> float:
    """The relative error of a few products and a decomposition, as `testing.Sample` has it."""
    return 32 * math.sqrt(sum(room.shape[-2:])) * torch.finfo(room.dtype).eps


def no_nan(x: Tensor, law: str) -> None:
    at_most(x.isnan().sum(), 0, f"{law}, entries that are NaN")


def memory_is_own(results: dict[str, Tensor], **arguments: Tensor) -> None:
    for name, result in results.items():
        separate_memory(result, name, **arguments)

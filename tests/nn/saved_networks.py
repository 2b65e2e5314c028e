"""A network to save, and comparisons of networks bit by bit."""

from __future__ import annotations

import torch

import modular_manifolds as mm


def network() -> mm.Module:
    return mm.Series(first=mm.Linear(3, 5, mass=2.0), act=mm.ReLU(), last=-2 * mm.Linear(5, 2))


def same(a: mm.Module, b: mm.Module) -> None:
    assert a.tree() == b.tree()
    assert list(a.geometries()) == list(b.geometries())
    theirs = b.state_dict()
    assert list(a.state_dict()) == list(theirs)
    for name, mine in a.state_dict().items():
        assert mine.dtype == theirs[name].dtype
        assert torch.equal(bits(mine), bits(theirs[name]))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: NaN equals itself, and 0 is not −0."""
    return tensor.contiguous().view(torch.uint8)

"""Rotary positions: lengths, distances and rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import modular_manifolds as mm


def test_a_turn_keeps_lengths_and_tells_distances() -> None:
    bond = mm.Rotary(6)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(bond(x).norm(dim=-1), x.norm(dim=-1))
    query, key = torch.randn(2, 6, dtype=torch.float64)
    turned = bond(query.expand(9, 6)) @ bond(key.expand(9, 6)).mT
    for distance in range(-8, 9):
        diagonal = turned.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal))
    assert not torch.allclose(turned[0, 1], turned[0, 0])


def test_turns_are_kept_and_made_anew_only_where_they_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    outer = torch.outer

    def counted(places: Tensor, pairs: Tensor) -> Tensor:
        made.append(len(places))
        return outer(places, pairs)

    monkeypatch.setattr(torch, "outer", counted)
    bond = mm.Rotary(6)
    long = torch.randn(5, 6)
    torch.testing.assert_close(bond(long)[:3], bond(long[:3]), rtol=0, atol=0)
    bond(torch.randn(2, 4, 6))
    assert made == [5]
    bond(torch.randn(7, 6))
    assert made == [5, 7]
    exact = bond.double()(long.double())
    torch.testing.assert_close(exact.norm(dim=-1), long.double().norm(dim=-1), rtol=1e-15, atol=0)
    assert bond(long.bfloat16()).dtype is torch.bfloat16
    assert not bond.state_dict()


def test_rounding_of_a_turn_is_within_its_bound() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(50, 40, 6).to(dtype)
        off = mm.Rotary(6)(x).double() - mm.Rotary(6)(x.double())
        size = float(x.double().square().mean(dim=-1).sqrt().amax())
        found = float(off.square().mean(dim=-1).sqrt().amax())
        assert 0 < found <= mm.Rotary(6).rounding_within(size, dtype)

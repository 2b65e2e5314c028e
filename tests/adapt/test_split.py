"""Splits: each logical matrix is the map that the module's own code computes with its part of the weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm

OUT, IN = 24, 10
Cut = Callable[[Tensor], list[Tensor]]

LAYOUTS: dict[str, tuple[mm.Split, Cut]] = {
    "parts": (mm.Split(parts=3), lambda y: list(y.chunk(3, -1))),
    "sizes": (mm.Split(sizes=(4, 20)), lambda y: list(y.split([4, 20], -1))),
    "heads": (mm.Split(heads=4), lambda y: [y.unflatten(-1, (4, 6))]),
    "parts of heads": (
        mm.Split(parts=3, heads=4),
        lambda y: [each.unflatten(-1, (4, 2)) for each in y.chunk(3, -1)],
    ),
    "grouped queries": (
        mm.Split(heads=(4, 1, 1)),
        lambda y: [each.unflatten(-1, (-1, 4)) for each in y.split([16, 4, 4], -1)],
    ),
    "parts inside heads": (
        mm.Split(heads=(4, 4, 4), interleaved=True),
        lambda y: list(y.unflatten(-1, (4, 3, 2)).unbind(-2)),
    ),
    "groups of queries": (
        mm.Split(heads=(4, 2, 2), interleaved=True),
        lambda y: [
            y.unflatten(-1, (2, 4, 3))[..., :2, :],
            y.unflatten(-1, (2, 4, 3))[..., 2, :],
            y.unflatten(-1, (2, 4, 3))[..., 3, :],
        ],
    ),
    "alternating": (mm.Split(parts=2, interleaved=True), lambda y: [y[..., ::2], y[..., 1::2]]),
}


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs(layout: str, transpose: bool) -> None:
    split, cut = LAYOUTS[layout]
    split = mm.Split(**{**vars(split), "transpose": transpose})
    w, x = torch.randn(OUT, IN, dtype=torch.float64), torch.randn(IN, dtype=torch.float64)
    stored = w.mT.contiguous() if transpose else w
    pieces = split.pieces(stored.shape)
    for piece, expected in zip(pieces, cut(w @ x), strict=True):
        found = piece.read(stored) @ x
        assert piece.shape[:-1] == found.shape == expected.shape
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("transpose", [False, True])
def test_inputs(transpose: bool) -> None:
    """The heads of an output projection: what it adds for each head."""
    w, x = torch.randn(7, 12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    stored = w.mT.contiguous() if transpose else w
    (piece,) = mm.Split(heads=4, dim=1, transpose=transpose).pieces(stored.shape)
    assert piece.shape == (4, 7, 3)
    parts = torch.einsum("hoi,hi->ho", piece.read(stored), x.view(4, 3))
    assert torch.allclose(parts.sum(0), w @ x)


def test_experts() -> None:
    w, x = torch.randn(3, 10, 24, dtype=torch.float64), torch.randn(3, 10, dtype=torch.float64)
    split = mm.Split(experts=3, parts=2, transpose=True, interleaved=True, names=("gate", "up"))
    y = torch.einsum("eio,ei->eo", w, x)
    for piece, expected in zip(split.pieces(w.shape), (y[:, ::2], y[:, 1::2]), strict=True):
        assert piece.shape == (3, 12, 10)
        assert torch.allclose(torch.einsum("eoi,ei->eo", piece.read(w), x), expected)


def test_groups_of_a_convolution() -> None:
    conv = nn.Conv1d(6, 8, 3, groups=2, bias=False)
    plan = mm.adapt(conv, start="keep")
    (row,) = plan.rows
    x = torch.randn(1, 6, 3)
    found = torch.einsum("goi,gi->go", row.read(conv.weight), x.view(2, 9))
    assert torch.allclose(found.flatten(), conv(x).flatten(), atol=1e-6)


def test_groups_of_a_transposed_convolution() -> None:
    conv = nn.ConvTranspose1d(6, 8, 1, groups=2, bias=False)
    (row,) = mm.adapt(conv, start="keep").rows
    x = torch.randn(1, 6, 1)
    assert row.shape == (2, 4, 3)
    found = torch.einsum("goi,gi->go", row.read(conv.weight), x.view(2, 3))
    assert torch.allclose(found.flatten(), conv(x).flatten(), atol=1e-6)

"""The weights of GPT-2 small as matrices, without its network, for this library's and torch's optimisers."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Final

import torch
from torch import Tensor
from torch.nn import Parameter

import modular_manifolds as mm

LAYERS: Final = 12
HEADS: Final = 12
WIDTH: Final = 768
TOKENS: Final = 50257
POSITIONS: Final = 1024


def hidden_shapes(width: int = WIDTH) -> list[tuple[int, ...]]:
    """The shapes of all matrices in the layers: queries, keys and values with one matrix for each head; output; up; down."""
    heads = (HEADS, width // HEADS, width)
    inner = 4 * width
    return [
        *[heads] * 3 * LAYERS,
        *[(width, width)] * LAYERS,
        *[(inner, width)] * LAYERS,
        *[(width, inner)] * LAYERS,
    ]


def embedding_shapes(width: int = WIDTH) -> list[tuple[int, ...]]:
    """The shapes of the token and position tables, with one vector in each row."""
    return [(TOKENS, width), (POSITIONS, width)]


class Matrix(mm.Atom):
    """A weight alone, with a geometry. Its gradients are set by hand."""

    def __init__(self, manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...]) -> None:
        point = mm.Space(1, "l2")
        super().__init__(
            geometry=mm.Geometry(manifold, norm),
            shape=shape,
            source=point,
            target=point,
            sensitivity=1.0,
            lipschitz=1.0,
        )

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """Nothing: `fill_` writes the numbers, if there are any."""
        return torch.empty(shape, dtype=dtype)

    def describe(self) -> str:
        return "Matrix"

    def arguments(self) -> dict[str, object]:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.sum()


def network(manifold: mm.Manifold, device: str, width: int = WIDTH) -> mm.Module:
    """All weights, those of the layers on `manifold` with the spectral norm; `fill_` writes their numbers."""
    with torch.device(device):
        hidden = [Matrix(manifold, mm.Spectral(), shape) for shape in hidden_shapes(width)]
        tables = [Matrix(mm.Euclidean(), mm.RowRMS(), shape) for shape in embedding_shapes(width)]
        return reduce(operator.rshift, [*hidden, *tables])


def torch_weights(device: str, width: int = WIDTH) -> tuple[list[Parameter], list[Parameter]]:
    """The matrices of the layers as torch's Muon takes them, all heads of a layer in one; and the embeddings."""
    square = (width, width)
    shapes = [each if len(each) == 2 else square for each in hidden_shapes(width)]
    hidden, embeddings = (
        [Parameter(torch.empty(shape, device=device)) for shape in each]
        for each in (shapes, embedding_shapes(width))
    )
    return hidden, embeddings


def torch_optimizers(
    hidden: list[Parameter], embeddings: list[Parameter]
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """`torch.optim.Muon` for the layers and AdamW for the embeddings, with lists of tensors as on any GPU."""
    return torch.optim.Muon(hidden), torch.optim.AdamW(embeddings, foreach=True)


def fill_(weights: Iterable[Tensor], *, seed: int) -> None:
    """Orthonormal matrices for weights, any rows for embeddings, gradients without a pattern; the same for the same seed."""
    with torch.no_grad():
        for number, weight in enumerate(weights):
            generator = torch.Generator(weight.device).manual_seed(1000 * seed + number)
            weight.normal_(generator=generator)
            if weight.shape[-2] not in (TOKENS, POSITIONS):
                wide = weight.shape[-2] < weight.shape[-1]
                q, _ = torch.linalg.qr(weight.mT if wide else weight)
                weight.copy_(q.mT if wide else q)
            weight.grad = torch.empty_like(weight).normal_(generator=generator)

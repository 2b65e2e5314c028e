"""A small language of words, and networks that know it."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm

WORDS = (
    "the",
    "sea,",
    "SEA;",
    "a",
    "boat",
    "lies",
    "at",
    "rest.\nWater",
    "falls",
    "&",
    "grün“",
    "tür\n",
)


def prose(characters: int = 3000) -> str:
    words = random.Random(0).choices(WORDS, k=characters)
    return " ".join(words)[:characters]


class OneHot(mm.Bond):
    """Tokens as coordinate vectors, in float64."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(sensitivity=1.0)
        self.vocabulary = vocabulary

    def forward(self, x: Tensor) -> Tensor:
        return functional.one_hot(x, self.vocabulary).double()


def bigram(outputs: Tensor) -> mm.Module:
    """The network whose outputs after token i are `outputs[i]`."""
    size = len(outputs)
    linear = mm.Linear(size, size, manifold=mm.Euclidean(), norm=mm.Spectral()).double()
    with torch.no_grad():
        linear.weight.copy_(outputs.T)
    return OneHot(size) >> linear

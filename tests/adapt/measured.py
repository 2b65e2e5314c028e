"""A perceptron to measure, and the rules for it."""

from __future__ import annotations

import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.nn.piece import Piece

PLAIN = mm.Geometry(mm.Euclidean(), mm.RMSOperator())
ORTHOGONAL = mm.Geometry(mm.Stiefel(), mm.Spectral())

SIGNS = mm.Geometry(mm.Euclidean(), mm.Max())
LENGTH = mm.Geometry(mm.Euclidean(), mm.Frobenius())


def mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)).to(dtype)
    with torch.no_grad():
        first = net.get_parameter("0.weight")
        first.copy_(mm.Stiefel().project(first))
    return net


def of_mlp(net: nn.Module) -> dict[str, tuple[nn.Parameter, Piece | None, mm.Geometry]]:
    geometries = [ORTHOGONAL, SIGNS, PLAIN, LENGTH]
    named = zip(net.named_parameters(), geometries, strict=True)
    return {name: (parameter, None, geometry) for (name, parameter), geometry in named}

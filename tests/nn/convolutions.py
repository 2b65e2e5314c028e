"""Convolutions of small images, and their dense matrices."""

from __future__ import annotations

import torch
from torch import Tensor

import modular_manifolds as mm


def dense(module: mm.Module) -> Tensor:
    """The matrix of a linear module, column by column."""
    source = module.source
    assert isinstance(source, mm.Space)
    with torch.no_grad():
        return module(torch.eye(source.size, dtype=torch.float64)).mT

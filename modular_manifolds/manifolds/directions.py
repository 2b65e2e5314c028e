"""Unit vectors: the sphere's projection, shared by the manifolds built from spheres."""

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import normalise


def onto_sphere(x: Tensor) -> Tensor:
    """Each vector (last dimension) divided by its length; zero becomes the first basis vector."""
    first = torch.zeros_like(x)
    first[..., 0] = 1.0
    is_zero = (x == 0).all(dim=-1, keepdim=True)
    return torch.where(is_zero, first, normalise(x, dim=-1))

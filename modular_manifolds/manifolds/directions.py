"""The projection to the unit sphere, shared by the manifolds built from spheres."""

from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely


def onto_sphere(x: Tensor) -> Tensor:
    """Each vector (last dimension) divided by its length; zero becomes the first basis vector."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    scaled = divide_safely(x, largest)
    scaled.narrow(-1, 0, 1).add_(largest == 0)
    return scaled / scaled.square().sum(dim=-1, keepdim=True).sqrt()

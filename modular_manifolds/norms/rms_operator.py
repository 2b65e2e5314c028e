"""The RMS to RMS operator norm: its steepest descent is Muon with a width-dependent step."""

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrix_sign import msign
from modular_manifolds.linalg.spectrum import singular_values
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.spectral import MSIGN_FLOOR, msign_accuracy, msign_by, msign_shortfall


@dataclass(frozen=True)
class RMSOperator(Norm):
    """`√(in/out) · σ_max(X)` for X of shape (out, in), the operator norm from rms to rms.

    Dual `√(out/in) · Σ σ_i`; steepest direction `−√(out/in) · msign(G)`, with the accuracy of `Spectral`.
    Source: Large et al., "Scalable optimization in the modular norm" (2024), Linear.
    """

    source = "rms"
    target = "rms"
    accuracy = 0.1

    def shortfall(self, gradient: Tensor, direction: Tensor) -> Tensor:
        return msign_shortfall(gradient, direction, unit=unit(gradient))

    def steepest_by(self, shape: tuple[int, ...], device_type: str) -> str:
        return msign_by(shape, device_type)

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        return math.sqrt(shape[-2] / shape[-1])

    def _value(self, x: Tensor) -> Tensor:
        return singular_values(x)[..., :1].unsqueeze(-1) / unit(x)

    def _dual(self, x: Tensor) -> Tensor:
        return singular_values(x).sum(dim=-1, keepdim=True).unsqueeze(-1) * unit(x)

    def _steepest(self, g: Tensor) -> Tensor:
        return -unit(g) * msign(g, accuracy=msign_accuracy(g.shape), floor=MSIGN_FLOOR)


def unit(x: Tensor) -> float:
    """`√(out/in)`: the spectral norm of a matrix whose RMS operator norm is one."""
    return math.sqrt(x.shape[-2] / x.shape[-1])

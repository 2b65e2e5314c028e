"""The spectral norm: its steepest descent is Muon."""

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrix_sign import WIDE, msign, msign_polynomials
from modular_manifolds.linalg.msign_gap import msign_gap
from modular_manifolds.linalg.spectrum import singular_values
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.norms.base import Norm

MSIGN_FLOOR = 0.01
"""The floor of `msign`, as a part of the largest singular value: smaller ones count little in the descent."""


def msign_accuracy(shape: tuple[int, ...]) -> float:
    """How far from 1 singular values of the steepest direction may be: 0.02, or 0.1 if both sides are long.

    Five steps reach either, the latter in bfloat16 too, in which a sixth would cost what it gains. Five of Muon's
    usual ones reach 0.3.
    """
    return 0.1 if min(shape[-2:]) >= WIDE else 0.02


def msign_shortfall(gradient: Tensor, direction: Tensor, *, unit: float) -> Tensor:
    """The bound of `Norm.shortfall` for `−u msign(G)`, from what its polynomials promise."""
    accuracy = msign_accuracy(gradient.shape)
    with full_precision(gradient.device.type):
        return msign_gap(gradient, direction, accuracy=accuracy, floor=MSIGN_FLOOR, unit=unit)


def msign_by(shape: tuple[int, ...], device_type: str) -> str:
    """How the steepest direction of these shapes is computed, as the end of a sentence."""
    columns, rows = sorted(shape[-2:])
    accuracy = msign_accuracy(shape)
    polynomials, half = msign_polynomials(accuracy, MSIGN_FLOOR, columns, device_type)
    precision = "bfloat16" if half else "the dtype of the weight"
    # As `linalg.gram_newton_schulz` does it.
    where = " on the Gram matrix" if 2 * rows >= 3 * columns and not half else ""
    return (
        f"an msign by {len(polynomials)} polynomials{where} in {precision}, to within {accuracy:g}"
    )


@dataclass(frozen=True)
class Spectral(Norm):
    """`‖X‖₂ = σ_max(X)`, the operator norm from l2 to l2; dual `Σ σ_i`; steepest direction `−msign(G)`.

    The steepest direction is `msign` with an accuracy of 0.02, of 0.1 for matrices of 256 rows and columns or more:
    singular values of at least a hundredth of the largest become 1 to within that, smaller ones lie
    between 0 and that much above 1. If many of those carry much of the dual, the descent falls short of it by more.
    """

    transposes = True
    source = "l2"
    target = "l2"
    accuracy = 0.1

    def shortfall(self, gradient: Tensor, direction: Tensor) -> Tensor:
        return msign_shortfall(gradient, direction, unit=1.0)

    def steepest_by(self, shape: tuple[int, ...], device_type: str) -> str:
        return msign_by(shape, device_type)

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        del shape
        return 1.0

    def _value(self, x: Tensor) -> Tensor:
        return singular_values(x)[..., :1].unsqueeze(-1)

    def _dual(self, x: Tensor) -> Tensor:
        return singular_values(x).sum(dim=-1, keepdim=True).unsqueeze(-1)

    def _steepest(self, g: Tensor) -> Tensor:
        return msign(g, accuracy=msign_accuracy(g.shape), floor=MSIGN_FLOOR).neg_()

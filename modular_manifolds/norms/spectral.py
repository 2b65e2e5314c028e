"""The spectral norm: its steepest descent is Muon."""

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrix_sign import BF16_MIN_COLUMNS, msign, msign_polynomials
from modular_manifolds.linalg.msign_gap import msign_gap
from modular_manifolds.linalg.spectrum import singular_values
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.norms.base import Norm

MSIGN_FLOOR = 0.01
"""The floor of `msign`, relative to the largest singular value: smaller ones contribute little to the descent."""


def msign_accuracy(shape: tuple[int, ...]) -> float:
    """The largest distance from 1 of a singular value of the steepest direction: 0.02, or 0.1 from 256 columns on.

    Five steps reach 0.02 in float32 and 0.1 in bfloat16, in which a sixth step would not pay. Five of Muon's usual
    steps reach 0.3.
    """
    return 0.1 if min(shape[-2:]) >= BF16_MIN_COLUMNS else 0.02


def msign_shortfall(gradient: Tensor, direction: Tensor, *, unit: float) -> Tensor:
    """The bound of `Norm.shortfall` for `−u msign(G)`, from the accuracy of its polynomials."""
    accuracy = msign_accuracy(gradient.shape)
    with full_precision(gradient.device.type):
        return msign_gap(gradient, direction, accuracy=accuracy, floor=MSIGN_FLOOR, unit=unit)


def msign_by(shape: tuple[int, ...], device_type: str) -> str:
    """The method of `msign` for matrices of this shape, as the end of a sentence."""
    columns, rows = sorted(shape[-2:])
    accuracy = msign_accuracy(shape)
    polynomials, half = msign_polynomials(accuracy, MSIGN_FLOOR, columns, device_type)
    precision = "bfloat16" if half else "the dtype of the weight"
    # The condition of `linalg.gram_newton_schulz`.
    gram = " on the Gram matrix" if 2 * rows >= 3 * columns and not half else ""
    return (
        f"an msign by {len(polynomials)} polynomials{gram} in {precision}, to within {accuracy:g}"
    )


@dataclass(frozen=True)
class Spectral(Norm):
    """`‖X‖₂ = σ_max(X)`, the operator norm from l2 to l2; dual `Σ σ_i`; steepest direction `−msign(G)`.

    The steepest direction is `msign` with an accuracy ε of 0.02, or of 0.1 if both sides are at least 256. Singular
    values of at least a hundredth of the largest become 1 ± ε; smaller ones lie between 0 and 1 + ε. If these carry
    much of the dual, the descent falls short of the dual by more than ε.
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

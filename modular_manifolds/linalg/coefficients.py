"""Odd polynomials `p(x) = a x + b x³ + c x⁵` that drive singular values to one, with their sources."""

from __future__ import annotations

from typing import Final

Polynomial = tuple[float, float, float]

_POLAR_EXPRESS_RAW: Final[tuple[Polynomial, ...]] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)

_SAFETY: Final = 1.01
"""The factor by which the paper shrinks the range of all polynomials but the last."""


def _safe(p: Polynomial) -> Polynomial:
    return p[0] / _SAFETY, p[1] / _SAFETY**3, p[2] / _SAFETY**5


POLAR_EXPRESS: Final[tuple[Polynomial, ...]] = (
    *(_safe(p) for p in _POLAR_EXPRESS_RAW[:-1]),
    _POLAR_EXPRESS_RAW[-1],
)
"""Amsel, Persson, Musco, Gower, "The Polar Express" (2025, arXiv 2505.16932): optimal for singular
values in [1e-3, 1], in this order, the last one repeated. All but the last are shrunk by 1.01 as the
paper advises. Rounding in half precision then cannot push a singular value past the stable range."""

NEWTON_SCHULZ_QUINTIC: Final[Polynomial] = (1.875, -1.25, 0.375)
"""The Padé/Newton–Schulz polynomial of degree five: `1 − p(1−e) = O(e³)`. Higham, Functions of
Matrices (2008), section 8.3."""

NEWTON_SCHULZ_CUBIC: Final[Polynomial] = (1.5, -0.5, 0.0)
"""Newton–Schulz of degree three: `1 − p(1−e) = O(e²)`. Higham (2008), equation 8.20."""

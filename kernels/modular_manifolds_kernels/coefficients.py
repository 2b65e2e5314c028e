"""The default polynomials `p(x) = a x + b x³ + c x⁵` of the kernels."""

from __future__ import annotations

from typing import Final

Polynomial = tuple[float, float, float]

_SAFETY: Final = 1.01
"""The factor by which the paper shrinks the range of all polynomials but the last."""
_RAW: Final[tuple[Polynomial, ...]] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)


def _shrunk(raw: tuple[Polynomial, ...]) -> tuple[Polynomial, ...]:
    return tuple((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in raw)


POLAR_EXPRESS: Final[tuple[Polynomial, ...]] = (*_shrunk(_RAW), (1.875, -1.25, 0.375))
"""Amsel, Persson, Musco, Gower, "The Polar Express" (2025, arXiv 2505.16932): optimal for singular
values in [1e-3, 1], in this order. All but the last are shrunk by 1.01 as the paper advises. Rounding in
half precision then cannot push a singular value past the stable range."""

FOUR_STEPS: Final[tuple[Polynomial, ...]] = (
    *_shrunk(
        (
            (8.405177706456072, -24.850807291013716, 18.42461702858357),
            (4.07717411748317, -3.0350424167195, 0.5722070525540575),
            (3.605791397455818, -2.6996329797670997, 0.5340115004951561),
        )
    ),
    (2.6177330845098274, -1.9412888952818121, 0.4486398450192728),
)
"""The same construction with four steps for singular values in [1/400, 1]: all come within 0.27 of 1. The five
steps of `torch.optim.Muon` reach 0.318. Smaller singular values grow less: the slope at zero is 314 instead of
485."""

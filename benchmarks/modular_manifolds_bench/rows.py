"""Rows on spheres with the spectral norm: how many rounds a certified direction takes.

    python -m modular_manifolds_bench.rows

Maximise `<G, A>` subject to `‖A‖₂ ≤ 1` and `<w_i, a_i> = 0` for every row. The dual is `min over λ of ‖G − diag(λ) W‖_nuc`. It is made
smooth, `φ = tr (XᵀX + ε²)^{1/2}`, and minimised by parabolas that lie above it, with Anderson mixing.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-2
MEMORY = 5
STEPS = 8
SHAPES = ((64, 64), (256, 256), (256, 64), (64, 256))


def rounds_to_tolerance(w: Tensor, g: Tensor, multipliers: Tensor | None) -> tuple[int, Tensor]:
    """The number of decompositions until the relative gap is at most `TOLERANCE`, and λ of shape (m, 1)."""
    g = g - (g * w).sum(dim=1, keepdim=True) * w
    g = g / g.norm()
    x = torch.zeros_like(g[:, :1]) if multipliers is None else multipliers
    points: list[Tensor] = []
    steps: list[Tensor] = []
    best, descent = min(g.shape) ** 0.5, 0.0
    for count in range(1, 301):
        epsilon = TOLERANCE * best / min(g.shape)
        u, sigma, vh = torch.linalg.svd(g - x * w, full_matrices=False)
        root = (sigma.square() + epsilon**2).rsqrt()
        a = (u * (sigma * root)) @ vh
        slope = (a * w).sum(dim=1, keepdim=True)
        free = a - slope * w
        long = max(1.0, float(torch.linalg.matrix_norm(free, 2)))
        best, descent = min(best, float(sigma.sum())), max(descent, float((g * free).sum()) / long)
        if 1 - descent / best <= TOLERANCE:
            return count, x
        if g.shape[0] >= g.shape[1]:
            weight = ((w @ vh.mT).square() * root).sum(dim=1, keepdim=True)
            step = slope / weight
        else:
            hessian = ((u * root) @ u.mT) * (w @ w.mT)
            weight = hessian.diagonal()[:, None]
            step = torch.linalg.solve(hessian, slope)
        points, steps = [*points, x][-MEMORY - 1 :], [*steps, step][-MEMORY - 1 :]
        x = x + step
        if len(steps) > 1:
            moved = torch.cat([points[-1] - each for each in points[:-1]], dim=1)
            changed = torch.cat([step - each for each in steps[:-1]], dim=1)
            scaled = weight.sqrt() * changed
            size = scaled.norm(dim=0)
            share = torch.linalg.lstsq(scaled / size, weight.sqrt() * step).solution
            x = x - (moved + changed) @ (share / size[:, None])
    return 300, x


def main() -> None:
    torch.manual_seed(0)
    for shape in SHAPES:
        m, n = shape
        for kind in ("Gaussian", "rank 8 and noise"):
            left, right = torch.randn(m, 8).double(), torch.randn(8, n).double()
            w = torch.nn.functional.normalize(torch.randn(shape).double(), dim=1)
            momentum, multipliers = torch.zeros_like(w), None
            cold: list[int] = []
            warm: list[int] = []
            for number in range(STEPS):
                g = torch.randn(shape).double()
                g = g if kind == "Gaussian" else 0.3 * g + (left * torch.randn(8)) @ right
                momentum = 0.95 * momentum + 0.05 * g if number else g
                cold.append(rounds_to_tolerance(w, momentum, None)[0])
                count, multipliers = rounds_to_tolerance(w, momentum, multipliers)
                warm.append(count)
            print(f"{m}×{n}, {kind}: cold {cold}, warm {warm[1:]}")


if __name__ == "__main__":
    main()

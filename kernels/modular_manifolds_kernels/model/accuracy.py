"""How close to 1 an iteration brings singular values: computed on the numbers themselves, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Polynomial = tuple[float, float, float]


def worst(polynomials: Sequence[Polynomial], floor: float) -> float:
    """The largest `|p(σ) − 1|` for σ in [floor, 1], p all the polynomials one after another, on 20,001 points."""
    values = torch.logspace(0, 1, 20_001, base=floor, dtype=torch.float64)
    for a, b, c in polynomials:
        values = values * (a + values.square() * (b + c * values.square()))
    return float((values - 1).abs().max())


def of_torch() -> tuple[Polynomial, ...]:
    """The polynomials of `torch.optim.Muon` with its default settings, asked of torch."""
    weight = torch.nn.Parameter(torch.empty(1, 1, device="meta"))
    defaults = torch.optim.Muon([weight]).defaults
    a, b, c = defaults["ns_coefficients"]
    return ((a, b, c),) * defaults["ns_steps"]

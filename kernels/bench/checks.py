"""Comparisons of every kernel with float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import modular_manifolds_kernels as kernels
import torch
from modular_manifolds_kernels import launches, naive
from modular_manifolds_kernels.configuration import Precision
from modular_manifolds_kernels.machine import machine_of
from stacks import drawn, polar
from torch import Tensor


@dataclass(frozen=True)
class Checked:
    """One comparison with float64: the relative error, or the largest of singular values."""

    what: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is at most the allowed one; false for NaN."""
        return self.error <= self.allowed


def relative(found: Tensor, exact: Tensor) -> float:
    """`‖found − exact‖_F / ‖exact‖_F` over the whole stack."""
    return float((found.double() - exact).norm() / exact.norm())


def checks(device: torch.device) -> Iterator[Checked]:
    """Compare the public functions with float64; on a GPU the single products too."""
    for shape in (
        (3, 17, 17),
        (5, 64, 64),
        (2, 100, 70),
        (4, 64, 768),
        (3, 128, 300),
        (300, 300),
        (200, 700),
    ):
        x = drawn(*shape, device=device)
        name = "×".join(map(str, shape))
        error = relative(kernels.msign(x, precision="fp32"), polar(x))
        yield Checked(f"msign {name} float32", error, 5e-6)
        sigma = torch.linalg.svdvals(kernels.msign(x.bfloat16(), precision="bf16").double())
        yield Checked(
            f"msign {name} bfloat16, singular values", float((sigma - 1).abs().max()), 2e-2
        )
        same = torch.equal(kernels.msign(x, precision="bf16"), kernels.msign(x, precision="bf16"))
        yield Checked(f"msign {name} twice, same bits", 0.0 if same else 1.0, 0.0)
    for shape in ((4, 64, 768), (2, 50, 32), (3, 300, 128), (300, 200)):
        w, a = polar(drawn(*shape, device=device)).float(), drawn(*shape, device=device)
        found, residual = kernels.stiefel_retract(w, a, eta=0.01)
        exact, _ = naive.stiefel_retract(w.double(), a.double(), 0.01, 1)
        name = "×".join(map(str, shape))
        yield Checked(f"retract {name}", relative(found, exact), 5e-6)
        wide = (found if shape[-2] <= shape[-1] else found.mT).double()
        left = (wide @ wide.mT - torch.eye(wide.shape[-2], device=device)).abs().amax(dim=(-2, -1))
        yield Checked(f"retract {name}, residual", float((left - residual).abs().max()), 5e-6)
    momentum, gradient = (
        drawn(3, 70, 300, device=device),
        drawn(3, 70, 300, device=device, condition=2),
    )
    kept, descended = naive.pre_step(momentum.double(), gradient.double(), 0.95, nesterov=True)
    step = kernels.pre_step_(momentum, gradient, mu=0.95, nesterov=True)
    yield Checked("pre-step, momentum", relative(momentum, kept), 5e-6)
    yield Checked("pre-step, direction", relative(step.direction, descended), 5e-6)
    norm = descended.square().sum(dim=(-2, -1)).sqrt()
    yield Checked("pre-step, norm", relative(step.norm(), norm), 5e-6)
    if device.type == "cuda":
        yield from product_checks(device)


def product_checks(device: torch.device) -> Iterator[Checked]:
    """Compare the Gram matrix, the polynomial and its application, as large matrices use them, with float64."""
    machine = machine_of(device.index or 0)
    x = drawn(2, 300, 500, device=device)
    cases: tuple[tuple[Precision, float], ...] = (("fp32", 5e-6), ("bf16", 2e-2))
    for precision, allowed in cases:
        operand = x if precision == "fp32" else x.bfloat16()
        r, _ = launches.gram(machine, operand, precision)
        yield Checked(f"gram {precision}", relative(r, naive.gram(operand.double())), allowed)
        yield Checked(f"gram {precision}, symmetric", 0.0 if torch.equal(r, r.mT) else 1.0, 0.0)
        p = launches.polynomial(machine, r, r, (0.5, -2.0, 1.5), precision)
        exact = naive.polynomial(r.double(), r.double(), 0.5, -2.0, 1.5)
        yield Checked(f"polynomial {precision}", relative(p, exact), allowed)
        y = launches.apply(machine, p, operand, 0.5, 1.5, precision, out=torch.empty_like(operand))
        exact = naive.apply(p.double(), operand.double(), 0.5, 1.5)
        yield Checked(f"apply {precision}", relative(y, exact), allowed)

"""One run of each kernel in each of its variants, compared with its naive specification in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from matrices import BFLOAT16, FLOAT32, error, well_conditioned
from modular_manifolds_kernels import POLAR_EXPRESS, launches, naive, retraction
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.launches import Sizes, Step, as_wide, empty_like, stack, storage
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.matrix_sign import msign_and_scale
from modular_manifolds_kernels.shipped import Precision
from torch import Tensor

BARS: Mapping[Precision, float] = {"fp32": FLOAT32, "bf16": BFLOAT16}
SCALE: Mapping[Precision, float] = {"fp32": 1e-6, "bf16": 2.0**-8}
"""The relative rounding of the scale `‖X Xᵀ‖_F^{1/2}`: that of one operand, which a mean of many entries does not exceed."""


def msign(
    machine: Machine,
    x: Tensor,
    coefficients: Sequence[Polynomial],
    precision: Precision,
    largest: Tensor | None = None,
) -> Tensor:
    """The matrix sign alone."""
    return msign_and_scale(machine, x, coefficients, precision, largest)[0]


def stiefel_retract(
    machine: Machine, w: Tensor, a: Tensor, eta: float, corrections: int
) -> tuple[Tensor, Tensor]:
    """A retraction along a direction of length one."""
    return retraction.stiefel_retract(machine, w, a, Step(eta, None, unit=True), corrections)


def symmetric_to_the_bit(r: Tensor) -> bool:
    return torch.equal(r, r.mT)


def gram(machine: Machine, x: Tensor, precision: Precision, *, scaled: bool = False) -> None:
    """`X Xᵀ`, of X divided by its largest entry where scaled; the parts of its length as well."""
    x = as_wide(stack(x))
    found = launches.largest_entries(machine, x) if scaled else None
    r, squares = launches.gram(machine, x, precision, found)
    y = x.double()
    if scaled:
        y = y / y.abs().amax(dim=(-2, -1), keepdim=True)
    assert error(r, naive.gram(y)) <= BARS[precision]
    assert symmetric_to_the_bit(r)
    if scaled:
        assert error(squares.sum(dim=1), r.double().square().sum(dim=(-2, -1))) <= 1e-6


def polynomial(machine: Machine, x: Tensor, precision: Precision, *, scaled: int = 0) -> None:
    """`a I + b A + c A B`, where A and B are polynomials in one symmetric matrix."""
    r = naive.gram(as_wide(stack(x)).double()).to(storage(precision))
    other = r if scaled == 2 else naive.polynomial(r, r, 1.0, -0.5, 0.1)
    length = r.double().square().sum(dim=(-2, -1))
    sizes = Sizes(length, torch.stack((length / 4, 3 * length / 4), dim=1).float(), length)
    found = launches.polynomial(
        machine, r, other, (2.0, -1.5, 0.7), precision, sizes=sizes, scaled=scaled
    )
    scale = length.rsqrt()[:, None, None]
    a = r.double() * (scale if scaled else 1)
    b = other.double() * (scale if scaled == 2 else 1)
    assert error(found, naive.polynomial(a, b, 2.0, -1.5, 0.7)) <= BARS[precision]
    assert symmetric_to_the_bit(found)


def apply(machine: Machine, x: Tensor, precision: Precision, *, scaled: bool = False) -> None:
    """`a X + c P X`, of X normalised where scaled."""
    x = as_wide(stack(x))
    y, scale = x.double(), None
    sizes = None
    if scaled:
        found = launches.largest_entries(machine, x)
        scales = torch.full(x.shape[:1], torch.nan)
        sizes = Sizes(found, launches.gram(machine, x, precision, found)[1], scales)
        y, scale = naive.normalise(y)
    p = naive.gram(naive.normalise(x.double())[0]).to(storage(precision))
    out = empty_like(x, x.dtype)
    launches.apply(machine, p, x, 1.5, -0.5, precision, out=out, sizes=sizes)
    assert error(out, naive.apply(p.double(), y, 1.5, -0.5)) <= BARS[precision]
    if sizes is not None and scale is not None:
        assert error(sizes.scales, scale) <= SCALE[precision]


def whole_msign(machine: Machine, x: Tensor, precision: Precision) -> None:
    """The matrix sign, by whichever launches its shape asks for."""
    before = x.clone()
    found, scale = msign_and_scale(machine, x, POLAR_EXPRESS, precision)
    assert torch.equal(x, before)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    half = precision == "bf16" or x.dtype != torch.float32
    wanted, length = naive.msign_and_scale(x.double(), POLAR_EXPRESS)
    assert scale.shape == x.shape[:-2]
    assert scale.dtype == torch.float32
    assert error(scale, length) <= SCALE[precision]
    # What counts in half precision is that the result is orthogonal, not which bits it has.
    if half:
        values = torch.linalg.svdvals(found.double())
        assert float((values - 1).abs().max()) <= BFLOAT16
        assert error(found, wanted) <= 2 * BFLOAT16
    else:
        # Three products a step, each of which leaves a few ε: four are allowed, over all steps.
        rounding = 3 * 4 * torch.finfo(torch.float32).eps * len(POLAR_EXPRESS)
        assert error(found, wanted) <= max(FLOAT32, rounding)


def retract(
    machine: Machine,
    shape: tuple[int, ...],
    corrections: int = 1,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A step from a random point; the residual is that of the result, as it is stored."""
    w = naive.msign(torch.randn(*shape, dtype=torch.float64), (*POLAR_EXPRESS, *POLAR_EXPRESS[-3:]))
    a = naive.msign(torch.randn(*shape, dtype=torch.float64), POLAR_EXPRESS)
    retract_of(machine, w.to(dtype), a.to(dtype), corrections)


def retract_of(machine: Machine, w: Tensor, a: Tensor, corrections: int = 1) -> None:
    """The same from this point in this direction."""
    found, residual = stiefel_retract(machine, w, a, 0.05, corrections)
    wanted, _ = naive.stiefel_retract(w.double(), a.double(), 0.05, corrections)
    _, left = naive.stiefel_retract(found.double(), torch.zeros_like(w).double(), 0.0, 0)
    assert found.dtype == w.dtype
    assert error(found, wanted) <= (FLOAT32 if w.dtype == torch.float32 else BFLOAT16)
    assert residual.shape == w.shape[:-2]
    assert float((residual - left).abs().max()) <= 2e-6


def retract_by_lengths(machine: Machine, shape: tuple[int, ...]) -> None:
    """A length for each matrix of a stack: of a direction of length one, or of a whole step; the latter not measured."""
    w = naive.msign(torch.randn(*shape, dtype=torch.float64), (*POLAR_EXPRESS, *POLAR_EXPRESS[-3:]))
    a = naive.msign(torch.randn(*shape, dtype=torch.float64), POLAR_EXPRESS)
    lengths = torch.linspace(0.01, 0.2, shape[0])
    wanted, _ = naive.stiefel_retract(w, a, lengths.double(), 1)
    step = lengths.double()[:, None, None] * a
    again, _ = naive.stiefel_retract(w, step, lengths.double(), 1, unit=False)
    torch.testing.assert_close(again, wanted)
    found, residual = retraction.stiefel_retract(
        machine, w.float(), a.float(), Step(1.0, lengths, unit=True), 1
    )
    whole, empty = retraction.stiefel_retract(
        machine, w.float(), step.float(), Step(1.0, lengths, unit=False), 1, measured=False
    )
    # Each matrix is held to its bar: a stack together would hide one that took its neighbour's length.
    for each, other, exact in zip(found, whole, wanted, strict=True):
        assert error(each, exact) <= FLOAT32
        assert error(other, exact) <= FLOAT32
    assert residual.shape == shape[:1]
    assert empty.numel() == 0


def pre_step(machine: Machine, x: Tensor, *, nesterov: bool) -> None:
    """Momentum in place, Nesterov's combination, and the sizes of what is descended."""
    gradient = stack(x)
    momentum = torch.randn(gradient.shape, dtype=torch.float64).to(x.dtype)
    kept, descended = naive.pre_step(momentum.double(), gradient.double(), 0.9, nesterov=nesterov)
    # The terms of a sum are rounded, and may cancel if there are few entries.
    terms = float(gradient.double().norm()) + float(momentum.double().norm())
    wanted = max(min(float(kept.norm()), float(descended.norm())), 1e-300)
    out = torch.empty_like(momentum) if nesterov else None
    largest, squares = launches.pre_step_(machine, momentum, gradient, out, 0.9)
    found = momentum if out is None else out
    bar = (1e-6 if x.dtype == torch.float32 else 1e-2) * max(1.0, terms / wanted)
    assert error(momentum, kept) <= bar
    assert error(found, descended) <= bar
    assert torch.equal(largest.amax(dim=1), found.float().abs().amax(dim=(-2, -1)))
    length = (largest.double().square() * squares.double()).sum(dim=1).sqrt()
    assert error(length, found.double().square().sum(dim=(-2, -1)).sqrt()) <= 1e-6


def _x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return well_conditioned(*shape).to(dtype)


Case = Callable[[Machine], None]
VARIANTS: Mapping[str, Case] = {
    "gram": lambda m: gram(m, _x(17, 20), "fp32"),
    "gram, scaled, several tiles": lambda m: gram(m, 1e30 * _x(65, 66), "fp32", scaled=True),
    "gram, bfloat16": lambda m: gram(m, _x(17, 20), "bf16"),
    "polynomial": lambda m: polynomial(m, _x(65, 70), "fp32"),
    "polynomial, first scaled": lambda m: polynomial(m, _x(17, 20), "fp32", scaled=1),
    "polynomial, both scaled": lambda m: polynomial(m, _x(17, 20), "bf16", scaled=2),
    "apply": lambda m: apply(m, _x(65, 70), "fp32"),
    "apply, scaled": lambda m: apply(m, 1e-30 * _x(17, 20), "bf16", scaled=True),
    "small msign": lambda m: whole_msign(m, _x(17, 20), "fp32"),
    "small msign, bfloat16": lambda m: whole_msign(m, _x(20, 17), "bf16"),
    "narrow msign": lambda m: whole_msign(m, _x(17, 90), "fp32"),
    "narrow msign, one step a time": lambda m: whole_msign(m, _x(40, 90), "fp32"),
    "narrow msign, bfloat16": lambda m: whole_msign(m, _x(150, 17), "bf16"),
    "tiled msign, one step a time": lambda m: whole_msign(m, _x(66, 67), "fp32"),
    "tiled msign": lambda m: whole_msign(m, _x(100, 66), "fp32"),
    "retract": lambda m: retract(m, (17, 40)),
    "retract, a length each": lambda m: retract_by_lengths(m, (2, 17, 40)),
    "tiled retract, a length each": lambda m: retract_by_lengths(m, (2, 70, 66)),
    "retract by launches, a length each": lambda m: retract_by_lengths(m, (2, 130, 129)),
    "tiled retract": lambda m: retract(m, (67, 66), 2),
    "pre-step": lambda m: pre_step(m, _x(17, 20), nesterov=False),
    "pre-step, Nesterov": lambda m: pre_step(m, _x(20, 300), nesterov=True),
}

"""The kernels that the optimiser's step calls: the matrix sign of skew Γ, the retraction by its length, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from counted import launches_of
from kernel_cases import BARS
from long_tests import mostly_long
from matrices import FLOAT32, error
from modular_manifolds_kernels import functions, matrix_sign, retraction
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.launches import Step, pre_step_
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import TARGETS, Precision
from torch import Tensor
from torch._subclasses import FakeTensorMode

from modular_manifolds.linalg import backend
from modular_manifolds.linalg.backend import (
    Bound,
    certify_by_kernels_,
    descend_by_kernels_,
    gate_by_kernels_,
    land_by_kernels_,
    msign_by_kernels,
    skew_msign_by_kernels,
    stiefel_retract_by_kernels,
    unit_length_by_kernels,
)
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.skew_newton_schulz import skew_iterate

PRECISIONS: list[Precision] = ["fp32", "bf16"]
STEPS = {"fp32": schedule(math.sqrt(1e-2 / 12), 2e-3), "bf16": schedule(5e-3, 1e-3, half=True)}
"""The polynomials that manifold Muon takes first for a gap of 1e-2."""


def skew(*shape: int) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64)
    return (x - x.mT).float()


@pytest.fixture
def by_interpreter(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doors lead to the kernels in the interpreter, by way of the public functions' checks."""

    def msign(
        x: Tensor, flat: Sequence[float], precision: Precision, largest: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        run: list[Polynomial] = [
            (flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)
        ]
        return matrix_sign.msign_and_scale(machine, x, run, precision, largest)

    def retract(
        w: Tensor,
        a: Tensor,
        eta: float,
        corrections: int,
        lengths: Tensor | None,
        unit: bool,
        measured: bool,
    ) -> tuple[Tensor, Tensor]:
        step = Step(eta, None if lengths is None else lengths.reshape(-1), unit)
        return retraction.stiefel_retract(machine, w, a, step, corrections, measured=measured)

    monkeypatch.setattr(functions.operators, "msign", msign)
    monkeypatch.setattr(functions.operators, "stiefel_retract", retract)


@pytest.mark.usefixtures("by_interpreter")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("k", mostly_long([20, 64, 100, 128, 132], usual=lambda k: k in (20, 100)))
def test_the_sign_of_a_skew_matrix_is_skew_to_rounding(k: int, precision: Precision) -> None:
    """In the spectral norm its symmetric part is what each step makes of the rounding of one product.

    In float32 that is at most ε times the slope of all steps at zero; in bfloat16, where such a bound says nothing, a few
    ε were seen in 30 random matrices, and 0.04 in the worst.
    """
    run = STEPS[precision]
    gamma = skew(k, k)
    found, size = skew_msign_by_kernels(gamma, run, half=precision == "bf16")
    wanted, length = skew_iterate(gamma.double(), run)
    assert found.dtype == torch.float32
    assert size.shape == (1, 1)
    assert error(size, length.reshape(1, 1)) <= (1e-6 if precision == "fp32" else 2.0**-8)
    assert error((found - found.mT) / 2, wanted) <= max(BARS[precision], 1e-4)
    slope = math.prod(a for a, _, _ in run)
    rounding = 2.0**-24 * slope if precision == "fp32" else 0.1
    symmetric = torch.linalg.matrix_norm((found + found.mT).double() / 2, 2)
    assert float(symmetric) <= rounding, f"{float(symmetric):.1e} of at most {rounding:.1e}"


@pytest.mark.parametrize("target", TARGETS)
def test_a_stack_of_heads_is_one_launch_in_either_precision(target: str) -> None:
    """Γ of 128×128: resident in bfloat16, in strips on sm_80, in tiles in float32."""
    gamma = torch.empty(432, 128, 128, device="meta")
    half = "narrow_msign" if target == "sm_80" else "small_msign"
    for precision, kernel in zip(PRECISIONS, ("tiled_msign", half), strict=True):
        counted = launches_of(
            lambda machine, p=precision: matrix_sign.msign_and_scale(machine, gamma, STEPS[p], p),
            target,
        )
        assert counted == {kernel: 1}


@pytest.mark.parametrize(
    ("shape", "precision", "total"),
    [
        ((432, 128, 128), "fp32", 1),
        ((432, 128, 128), "bf16", 1),
        ((12, 768, 768), "fp32", 16),
        ((12, 768, 768), "bf16", 19),
        ((24, 1536, 1536), "fp32", 16),
        ((24, 1536, 1536), "bf16", 19),
    ],
    ids=str,
)
def test_launches_of_the_sign_of_gamma(
    shape: tuple[int, int, int], precision: Precision, total: int
) -> None:
    """One for the largest entries and three a polynomial, whatever the depth of the stack; the scale costs none."""
    gamma, run = torch.empty(shape, device="meta"), STEPS[precision]
    counted = launches_of(
        lambda machine: matrix_sign.msign_and_scale(machine, gamma, run, precision)
    )
    assert sum(counted.values()) == total, f"{shape} {precision}, {len(run)} steps: {counted}"


@pytest.mark.parametrize(
    ("shape", "counts"),
    [
        ((432, 768, 64), (1, 1, 1)),
        ((12, 768, 768), (1, 3, 5)),
        ((24, 3072, 768), (1, 3, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_launches_of_the_retraction(
    shape: tuple[int, int, int], counts: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """With no, one and two corrections, a length for each matrix; and three more for a residual of larger ones."""
    w, lengths = (
        torch.empty(shape, device="meta", dtype=dtype),
        torch.empty(shape[0], device="meta"),
    )
    for corrections, total in enumerate(counts):
        for step in (Step(0.1, None, unit=False), Step(1.0, lengths, unit=False)):
            counted = launches_of(
                lambda machine, s=step, c=corrections: retraction.stiefel_retract(
                    machine, w, w, s, c, measured=False
                )
            )
            assert sum(counted.values()) == total, f"{shape}, {corrections} corrections: {counted}"
    measured = launches_of(
        lambda machine: retraction.stiefel_retract(machine, w, w, Step(0.1, None, unit=False), 1)
    )
    extra = 0 if counts[1] == 1 else 3
    assert sum(measured.values()) == counts[1] + extra, f"{shape} with residual: {measured}"


def test_launches_of_the_pre_step() -> None:
    x = torch.empty(24, 3072, 768, device="meta")
    counted = launches_of(lambda machine: pre_step_(machine, x, x, torch.empty_like(x), 0.9))
    assert counted == {"pre_step": 1}


@pytest.mark.usefixtures("by_interpreter")
@pytest.mark.parametrize(
    "shape",
    mostly_long(
        [(2, 40, 17), (2, 66, 70), (2, 129, 130)], usual=lambda shape: shape == (2, 40, 17)
    ),
    ids=str,
)
def test_the_step_lands_where_its_length_says(shape: tuple[int, ...]) -> None:
    """By a tangent step that is multiplied by its length, one for each matrix, a number or one for all."""
    w = torch.linalg.qr(torch.randn(shape, dtype=torch.float64))[0]
    w = w if shape[-2] >= shape[-1] else torch.linalg.qr(torch.randn(shape).double().mT)[0].mT
    tall = w if shape[-2] >= shape[-1] else w.mT
    turn, _ = torch.linalg.qr(torch.randn(shape[0], *2 * tall.shape[-1:], dtype=torch.float64))
    # Ω skew with Ω² = −I needs an even side: only directions that Ω lacks stay off, which a correction mends.
    omega = torch.zeros_like(turn)
    for i in range(0, omega.shape[-1] - 1, 2):
        omega[:, i, i + 1], omega[:, i + 1, i] = 1.0, -1.0
    a = tall @ (turn @ omega @ turn.mT)
    a = a if shape[-2] >= shape[-1] else a.mT
    lengths = torch.tensor([0.02, 0.1])
    for length in (lengths, lengths[:, None, None], lengths[1], 0.1):
        each = torch.as_tensor(length).reshape(-1, 1, 1).double()
        x = w + each * a
        u, _, vh = torch.linalg.svd(x, full_matrices=False)
        found = stiefel_retract_by_kernels(w.float(), (each * a).float(), length, 2)
        for one, exact in zip(found, u @ vh, strict=True):
            assert error(one, exact) <= FLOAT32


def test_the_doors_read_nothing_on_the_host() -> None:
    """Fakes on cuda raise at any read; lengths and rates may be tensors there."""
    pytest.importorskip("triton")
    with FakeTensorMode():
        x, rate = torch.empty(12, 64, 64, device="cuda"), torch.empty((), device="cuda")
        assert backend.why_not(x) is None
        result, size = skew_msign_by_kernels(x, STEPS["bf16"], half=True)
        assert (result.shape, size.shape, size.dtype) == (x.shape, (12, 1, 1), torch.float32)
        for length in (0.1, rate, rate.expand(12), size):
            assert stiefel_retract_by_kernels(x, result, length, 1).shape == x.shape
        assert msign_by_kernels(x, STEPS["fp32"], half=False).is_cuda
        ok, moving = torch.ones((), dtype=torch.bool, device="cuda"), size != 0
        stack, rows = descend_by_kernels_([x], [result], ok, 0.9, nesterov=True, turned=[True])
        assert (stack.shape, rows.shape) == ((12, 64, 64), (12, 64))
        land_by_kernels_([x], [], stack, stack, moving, turned=[True])
        assert unit_length_by_kernels(x, rows=True).shape == x.shape
        ok, reached = gate_by_kernels_(rows.select(0, 0), torch.empty(66, device="cuda"), 1.0)
        assert (ok.shape, reached.shape, reached.dtype) == ((), (64,), torch.bool)
        gap = certify_by_kernels_(stack, x, result, size, Bound(*[0.0] * 7), pair=(x, x))
        assert gap.shape == (12,)

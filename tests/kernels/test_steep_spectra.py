"""Products in bfloat16 of matrices with singular values k^-0.5, which two steps on one Gram matrix threw out of range."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import msign
from long_tests import mostly_long
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import choose
from torch import Tensor

from modular_manifolds.linalg.newton_schulz import schedule


def falling(n: int, k: int) -> Tensor:
    """An n×k matrix with singular values 1, 2^-0.5, 3^-0.5, …"""
    u, _, v = torch.linalg.svd(torch.randn(n, k, dtype=torch.float64), full_matrices=False)
    return ((u * torch.arange(1, n + 1, dtype=torch.float64) ** -0.5) @ v).float()


@pytest.mark.parametrize(
    ("shape", "kernel"),
    mostly_long(
        [((128, 192), "narrow_msign"), ((132, 200), "apply")],
        usual=lambda case: case[1] == "narrow_msign",
        several=True,
    ),
    ids=str,
)
def test_no_singular_value_is_thrown_out_of_range(
    machine: Machine, launched: list[str], shape: tuple[int, int], kernel: str
) -> None:
    """Polynomials with room for half precision keep their promise, and those without it lose little.

    With two steps on one Gram matrix the largest was 9 to 208 with the first run, and now and then 1e4 to 1e23 with the
    second.
    """
    x = falling(*shape)
    floor = shape[0] ** -0.25
    for run, allowed in (
        (schedule(0.05, 0.01 * floor), 1.5),
        (schedule(0.02, 0.001 * floor, half=True), 1.03),
    ):
        values = torch.linalg.svdvals(msign(machine, x, run, "bf16").double())
        assert float(values.max()) <= allowed
    assert launched[-1] == kernel


def test_in_bfloat16_every_row_makes_one_step_on_a_gram_matrix() -> None:
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        for side in (32, 64, 128):
            row = choose("narrow_msign", "bf16", target, side=side)
            assert row is not None
            assert row.constexprs["STEPS_PER_GRAM"] == 1

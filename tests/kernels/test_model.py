"""The counts: torch's from torch's own code, ours from the code that launches, and the bars."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import msign
from modular_manifolds_kernels import FOUR_STEPS, POLAR_EXPRESS, model
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.model import accuracy
from modular_manifolds_kernels.model.launch import Launch
from modular_manifolds_kernels.retraction import stiefel_retract
from modular_manifolds_kernels.static.targets import TARGETS

from modular_manifolds.cli.main import main


def named(launches: list[Launch]) -> list[str]:
    return [each.name for each in launches]


def test_torchs_sequence_is_the_one_in_its_source() -> None:
    n, k = 96, 160
    launches = model.muon_step(n, k, copies=False)
    iteration = ["mm", "addmm", "addmm"]
    assert named(launches) == [
        *("lerp_.Scalar", "lerp.Scalar", "_to_copy", "linalg_vector_norm", "clamp", "div_.Tensor"),
        *(5 * iteration),
        *("mul_.Tensor", "add_.Tensor"),
    ]
    assert sum(each.flops for each in launches) == 5 * (4 * n * n * k + 2 * n**3)
    # A product of a matrix with its own transpose reads it once; bfloat16 has two bytes.
    products = [each for each in launches if each.name in iteration]
    assert [(each.read, each.written) for each in products[:3]] == [
        (2 * n * k, 2 * n * n),
        (2 * n * n, 2 * n * n),
        (2 * (n * n + n * k), 2 * n * k),
    ]


def test_a_tall_weight_is_counted_as_its_transpose() -> None:
    assert model.total(model.muon_step(160, 96)) == model.total(model.muon_step(96, 160))


def test_the_copy_before_addmm_is_counted_apart() -> None:
    n = 64
    bare = model.total(model.muon_step(n, n, copies=False))
    copied = model.total(model.muon_step(n, n))
    assert copied.launches == bare.launches + 10
    assert copied.flops == bare.flops
    # Each copy reads and writes a matrix, and the product reads the copy too: for R R, where R is an
    # operand as well; for P X likewise.
    assert copied.bytes == bare.bytes + 5 * (3 + 3) * 2 * n * n


def test_the_counted_launches_are_those_that_the_kernels_make() -> None:
    square = named(model.step_launches(512, 512, steps=2))
    assert square == ["pre_step", *(2 * ["gram", "polynomial", "apply"])]
    assert named(model.msign_launches(7, 64, 64, steps=8)) == ["small_msign"]
    assert named(model.msign_launches(7, 1024, 64, steps=8)) == ["narrow_msign"]
    assert named(model.retraction_launches(7, 768, 64)) == ["stiefel_retract"]
    assert named(model.msign_launches(7, 128, 100, steps=8, precision="fp32")) == ["tiled_msign"]
    assert named(model.retraction_launches(7, 128, 3072)) == ["tiled_retract"]


@pytest.mark.parametrize(("n", "k"), [(66, 67), (66, 100), (128, 210)])
def test_the_products_counted_in_tiles_are_those_that_are_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, n: int, k: int
) -> None:
    builder = pytest.importorskip("triton.runtime.interpreter").InterpreterBuilder
    stock = builder.create_dot
    made: list[int] = []

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        made.append(2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1])
        return stock(self, a, b, *rest)

    monkeypatch.setattr(builder, "create_dot", create_dot)
    x = torch.randn(2, n, k)
    for run, counted in (
        (
            lambda: msign(machine, x, POLAR_EXPRESS[:6], "fp32"),
            model.msign_launches(2, n, k, steps=6, precision="fp32"),
        ),
        (
            lambda: stiefel_retract(machine, x, x, 0.1, 1),
            model.retraction_launches(2, n, k),
        ),
    ):
        made.clear()
        run()
        assert [each.flops for each in counted] == [sum(made)]


def test_operations_and_bytes_of_the_launches_of_one_step() -> None:
    n = 1024
    _, gram, polynomial, apply = model.step_launches(n, n, steps=1)
    # Eight tiles of 128 a side: 36 on and below the diagonal, of 64.
    assert (gram.blocks, polynomial.blocks, apply.blocks) == (36, 36, 64)
    assert gram.flops == polynomial.flops == 36 * 2 * 128 * 128 * n
    assert apply.flops == 2 * n**3
    matrix = 2 * n * n
    for each, matrices in ((gram, 2), (polynomial, 2), (apply, 3)):
        assert each.bytes == pytest.approx(matrices * matrix, rel=1e-3)


def test_a_long_matrix_is_read_by_its_gram_matrix_and_by_the_last_product_alone() -> None:
    n, k = 1024, 4096
    _, gram, *inside, apply = model.step_launches(n, k, steps=2)
    assert gram.flops == 36 * 2 * 128 * 128 * k
    assert apply.flops == 2 * n * n * k
    assert named(inside) == 5 * ["polynomial"]
    assert {each.flops for each in inside} == {36 * 2 * 128 * 128 * n}
    assert (gram.bytes, apply.bytes) == pytest.approx(
        (2 * (n * k + n * n), 2 * (2 * n * k + n * n)), 1e-3
    )


def test_without_a_pre_step_the_largest_entry_costs_a_pass_that_only_reads() -> None:
    (before, *_) = model.msign_launches(1, 512, 1024, steps=1)
    assert before.name == "pre_step"
    assert before.bytes == pytest.approx(4 * 512 * 1024, rel=1e-2)


def test_a_tile_past_the_edge_is_counted() -> None:
    (_, gram, *_) = model.step_launches(129, 129, steps=1)
    assert gram.flops == 3 * 2 * 128 * 128 * 192


def test_the_pre_step_passes_over_memory_once() -> None:
    (before, *_) = model.step_launches(1024, 4096, steps=1)
    entries = 1024 * 4096
    # Reads momentum and gradient, writes the momentum and what is descended in bfloat16; and a few scalars.
    assert before.bytes == pytest.approx((4 + 4 + 4 + 2) * entries, rel=1e-2)


def test_a_batch_does_as_much_as_its_matrices() -> None:
    one, many = (model.msign_launches(b, 300, 500, steps=5) for b in (1, 6))
    assert named(one) == named(many)
    assert [6 * each.flops for each in one] == [each.flops for each in many]


def test_four_steps_are_at_least_as_accurate_as_torchs_five_from_a_four_hundredth_on() -> None:
    theirs = accuracy.of_torch()
    assert (len(theirs), model.steps()) == (5, len(FOUR_STEPS))
    for floor in (1 / 400, 1 / 100, 1 / 10, 1 / 2):
        assert model.worst(FOUR_STEPS, floor) <= model.worst(theirs, floor)
    # And not for smaller ones, as the table says.
    assert model.worst(FOUR_STEPS, 1e-3) > model.worst(theirs, 1e-3)


def test_five_steps_are_more_accurate_than_torchs_five_from_a_thousandth_on() -> None:
    for floor in (1 / 1000, 1 / 100, 1 / 10, 1 / 2):
        ours = model.worst(POLAR_EXPRESS[:5], floor)
        assert ours <= 0.5 * model.worst(accuracy.of_torch(), floor)


def test_the_four_polynomials_are_the_best_one_after_another() -> None:
    """Each, before it is shrunk, errs by as much at four points in turn: no other of degree five errs less."""
    low, high = 1 / 400, 1.0
    for step, (a, b, c) in enumerate(FOUR_STEPS):
        shrink = 1.01 if step < 3 else 1.0
        a, b, c = a * shrink, b * shrink**3, c * shrink**5
        x = torch.linspace(low, high, 200_001, dtype=torch.float64)
        error = a * x + b * x**3 + c * x**5 - 1
        turns = 1 + torch.nonzero((error[2:] - error[1:-1]) * (error[1:-1] - error[:-2]) < 0)
        extremes = error[torch.tensor([0, *turns.flatten().tolist(), len(x) - 1])]
        assert len(extremes) == 4
        size = error.abs().max()
        signs = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(extremes, signs * size, rtol=1e-5, atol=1e-9)
        low, high = float(1 - size), float(1 + size)


def test_the_map_of_singular_values_is_that_of_the_matrix() -> None:
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))
    sigma = torch.logspace(-2, 0, 30, dtype=torch.float64)
    x = u * sigma
    for a, b, c in POLAR_EXPRESS[:4]:
        r = x.mT @ x
        x = x @ (a * torch.eye(30, dtype=torch.float64) + b * r + c * r @ r)
    found = (torch.linalg.svdvals(x) - 1).abs().max()
    assert float(found) <= model.worst(POLAR_EXPRESS[:4], 1e-2) + 1e-12


def test_a_lower_bound_is_the_larger_of_two() -> None:
    sheet = TARGETS["sm_90"]
    products = Launch("a", flops=10**15, read=8, written=8)
    memory = Launch("b", flops=8, read=10**12, written=0)
    seconds = model.least_seconds([products, memory], sheet, precision="bf16")
    assert seconds == pytest.approx(10**15 / 989.4e12 + 10**12 / 3.35e12)


def test_the_bars_are_met() -> None:
    assert [f"{each.what}: {each.counted:.3f}" for each in model.bars() if not each.met] == []


def test_the_command_prints_the_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["kernels", "--model"]) == 0
    lines = [each.rstrip() for each in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 100
    assert sum("×" in each for each in lines) > 20

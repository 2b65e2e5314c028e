"""Every kernel, run by the interpreter, is within its bar of its naive specification in float64."""

from __future__ import annotations

import math

import kernel_cases as cases
import pytest
import torch
from kernel_cases import VARIANTS, msign
from long_tests import mostly_long
from matrices import SHAPES, polar, well_conditioned
from modular_manifolds_kernels import POLAR_EXPRESS, launches
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision
from torch import Tensor

ROOMS: list[tuple[tuple[int, ...], Precision]] = [
    *((shape, "fp32") for shape in SHAPES),
    *((shape, "bf16") for shape in [(17, 17), (65, 64), (100, 70), (3, 20, 33)]),
]
"""Every shape in float32. What bfloat16 changes does not depend on the shape, so it is tried at fewer."""


def is_small(room: tuple[tuple[int, ...], str]) -> bool:
    return math.prod(room[0]) < 2000


@pytest.mark.parametrize(
    "variant", mostly_long(VARIANTS, usual=lambda name: not name.startswith("retract by launches"))
)
def test_every_variant(machine: Machine, variant: str) -> None:
    """Each variant compares the kernel with its specification in float64: the assertions stand in `kernel_cases`."""
    VARIANTS[variant](machine)


@pytest.mark.parametrize(
    ("shape", "precision"), mostly_long(ROOMS, usual=is_small, several=True), ids=str
)
def test_products_of_every_size(
    machine: Machine, shape: tuple[int, ...], precision: Precision
) -> None:
    x = well_conditioned(*shape).float()
    cases.gram(machine, x, precision)
    cases.polynomial(machine, x, precision)
    cases.apply(machine, x, precision)


@pytest.mark.parametrize(
    ("shape", "precision"),
    mostly_long(
        [*ROOMS, ((2, 5, 150), "fp32"), ((2, 5, 150), "bf16")],
        usual=is_small,
        several=True,
    ),
    ids=str,
)
def test_msign_of_every_size(
    machine: Machine, shape: tuple[int, ...], precision: Precision
) -> None:
    cases.whole_msign(machine, well_conditioned(*shape).float(), precision)


@pytest.mark.long
def test_a_stack_of_several_tiles(machine: Machine) -> None:
    """Each program finds its matrix and its tile in the one number it has."""
    x = well_conditioned(3, 70, 140).float()
    for scaled in (False, True):
        cases.gram(machine, x, "fp32", scaled=scaled)
        cases.apply(machine, x, "fp32", scaled=scaled)
        cases.polynomial(machine, x, "fp32", scaled=int(scaled))
    cases.pre_step(machine, torch.randn(3, 20, 300), nesterov=True)


def test_retraction_beyond_one_launch(machine: Machine) -> None:
    cases.retract(machine, (130, 129), 2)


@pytest.mark.parametrize(
    ("shape", "precisions"),
    [
        ((17, 17), ("fp32", "bf16")),
        ((63, 65), ("bf16", "fp32")),
        ((150, 20), ("fp32", "bf16")),
        ((70, 100), ("bf16", "fp32")),
    ],
    ids=str,
)
@pytest.mark.long
def test_half_precision_inputs(
    machine: Machine, shape: tuple[int, int], precisions: tuple[Precision, Precision]
) -> None:
    """Both dtypes at every shape, and with products of both precisions at some."""
    for dtype, precision in zip((torch.bfloat16, torch.float16), precisions, strict=True):
        cases.whole_msign(machine, well_conditioned(*shape).to(dtype), precision)


@pytest.mark.parametrize("shape", [*SHAPES, (200, 30)], ids=str)
def test_retraction_of_every_size(machine: Machine, shape: tuple[int, ...]) -> None:
    cases.retract(machine, shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", mostly_long([(17, 40), (100, 70)], usual=2), ids=str)
def test_retraction_of_weights_in_half_precision(
    machine: Machine, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for corrections in (0, 1):
        cases.retract(machine, shape, corrections, dtype)


@pytest.mark.long
@pytest.mark.parametrize(
    "shape", [(65, 65), (96, 200), (127, 127), (128, 300), (2, 66, 70)], ids=str
)
def test_two_tiles_of_every_size(
    machine: Machine, launched: list[str], shape: tuple[int, ...]
) -> None:
    """One launch each, and what lies past the edge of a matrix does not matter."""
    cases.whole_msign(machine, well_conditioned(*shape).float(), "fp32")
    cases.retract(machine, shape)
    assert launched == ["tiled_msign", "tiled_retract"]


@pytest.mark.long
def test_two_tiles_of_views(machine: Machine) -> None:
    """Transposed, every second column, part of a larger matrix, one matrix seen as two."""
    x = polar(torch.randn(66, 68)).float()
    every_second = torch.zeros(66, 136)[:, ::2].copy_(x)
    part = torch.full((2, 70, 80), torch.nan)[1:, 2:68, 7:75].copy_(x)
    for view in (x.mT, every_second, part, x.expand(2, 66, 68)):
        assert not view.is_contiguous()
        # The direction has other strides than the point.
        cases.retract_of(machine, view, torch.randn(view.shape) / 10)
    cases.whole_msign(
        machine,
        torch.full((71, 120), torch.nan)[1:, 5:110].copy_(well_conditioned(70, 105)).mT,
        "fp32",
    )
    cases.whole_msign(machine, torch.zeros(70, 140)[:, ::2].copy_(well_conditioned(70, 70)), "fp32")


def test_symmetric_matrices_in_tiles_are_so_to_the_bit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operands of a program, after its launch: the sums of a tile do not come in the order of its mirror image."""
    stock = launches.scratch
    rooms: list[tuple[Tensor, int]] = []

    def scratch(row: Configuration, x: Tensor, *, squares: int) -> tuple[Tensor, int]:
        rooms.append(stock(row, x, squares=squares))
        return rooms[-1]

    monkeypatch.setattr(launches, "scratch", scratch)
    msign(machine, well_conditioned(1, 100, 170).float(), POLAR_EXPRESS[:3], "fp32")
    cases.retract(machine, (1, 100, 110))
    for room, width in rooms:
        flat = room.flatten()[128 * width :]
        for square in flat.reshape(-1, 128, 128):
            assert bool(square.any())
            assert cases.symmetric_to_the_bit(square)
            assert not bool(square[100:].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (17, 17), (65, 64), (3, 20, 333)], ids=str)
def test_pre_step_of_every_size(
    machine: Machine, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for nesterov in (False, True):
        cases.pre_step(machine, torch.randn(shape).to(dtype), nesterov=nesterov)


def test_views_are_read_where_they_are(machine: Machine) -> None:
    """Transposed, every second column, part of a larger matrix, one matrix seen as three."""
    x = well_conditioned(20, 24).float()
    every_second = torch.zeros(20, 48)[:, ::2].copy_(x)
    part = torch.zeros(3, 30, 40)[1:, 3:23, 7:31].copy_(x)
    views = [x.mT, every_second, part, x.expand(3, 20, 24), x.mT.expand(2, 24, 20)]
    for view in views:
        assert not view.is_contiguous()
        cases.gram(machine, view, "fp32")
        cases.apply(machine, view, "bf16", scaled=True)
        cases.whole_msign(machine, view, "bf16")
        cases.pre_step(machine, view, nesterov=True)

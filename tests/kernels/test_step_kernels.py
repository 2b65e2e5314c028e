"""The kernels of a step beside products, in the interpreter: lists of weights, lengths and certificates, against torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from long_tests import mostly_long
from modular_manifolds_kernels import certificate, descent, launches, naive, step_operators
from modular_manifolds_kernels.certificate import Bound
from modular_manifolds_kernels.machine import Machine
from torch import Tensor

ONCE = (
    ((5, 7), False),
    ((2, 9, 300), False),
    ((17, 3), True),
    ((3, 4, 5), True),
)
"""Shapes of a weight, and whether others lie across."""


def is_usual(given: tuple[tuple[int, ...], bool]) -> bool:
    """A matrix that fills a part of a tile, and stacks of which some lie across."""
    return given in (ONCE[0], ONCE[3])


def weights_like(
    shape: tuple[int, ...], mixed: bool, count: int
) -> tuple[list[Tensor], list[bool]]:
    """As many tensors of this shape, of which the last ones lie across if `mixed`."""
    turned = [mixed and place >= count // 2 for place in range(count)]
    across = (*shape[:-2], shape[-1], shape[-2])
    return [torch.randn(across if turn else shape) for turn in turned], turned


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [each.clone() for each in tensors]


@pytest.mark.parametrize(
    "dtype",
    mostly_long(
        [torch.float32, torch.bfloat16, torch.float16], usual=lambda dtype: dtype is torch.bfloat16
    ),
)
@pytest.mark.parametrize("how", ["gradients", "momentum", "nesterov"])
@pytest.mark.parametrize("given", mostly_long([*ONCE], usual=is_usual), ids=str)
def test_what_is_descended(
    machine: Machine, given: tuple[tuple[int, ...], bool], how: str, dtype: torch.dtype
) -> None:
    gradients, turned = weights_like(*given, 3)
    gradients = [each.to(dtype) for each in gradients]
    gradients[1][..., :1, :] = 0.0
    momenta = [] if how == "gradients" else [torch.randn(each.shape) for each in gradients]
    others = copies(momenta)
    ok = torch.tensor(1, dtype=torch.int8)
    found, rows = descent.descend_(
        machine, gradients, momenta, ok, 0.9, nesterov=how == "nesterov", turned=turned
    )
    wanted, largest = naive.descend_(
        gradients, others, torch.tensor(True), 0.9, nesterov=how == "nesterov", turned=turned
    )
    torch.testing.assert_close(found, wanted)
    assert torch.equal(rows, largest)
    for ours, theirs in zip(momenta, others, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_that_is_left_out_keeps_every_bit_of_the_momenta(
    machine: Machine, nesterov: bool
) -> None:
    """NaN in the gradients arrives nowhere, by the kernel and by its specification."""
    gradients, turned = weights_like((5, 7), True, 4)
    gradients[2][1, 2], gradients[0][0, 0] = math.nan, math.inf
    for spec in (False, True):
        momenta = [torch.randn(each.shape) for each in gradients]
        before = copies(momenta)
        if spec:
            found, rows = naive.descend_(
                gradients, momenta, torch.tensor(False), 0.9, nesterov=nesterov, turned=turned
            )
        else:
            ok = torch.tensor(0, dtype=torch.int8)
            found, rows = descent.descend_(
                machine, gradients, momenta, ok, 0.9, nesterov=nesterov, turned=turned
            )
        assert all(map(torch.equal, momenta, before))
        assert bool(found.isfinite().all())
        assert not bool(rows.any())


@pytest.mark.long
def test_more_weights_than_a_launch_takes(machine: Machine, launched: list[str]) -> None:
    """And both orientations: each is launched by itself, and a launch reads and writes the right places."""
    count = descent.TENSORS_PER_LAUNCH + 6
    gradients, turned = weights_like((2, 3), True, 2 * count)
    found, _ = descent.descend_(
        machine,
        gradients,
        [],
        torch.tensor(1, dtype=torch.int8),
        0.0,
        nesterov=False,
        turned=turned,
    )
    assert launched == ["descend"] * 4
    stack = [x.mT if turn else x for x, turn in zip(gradients, turned, strict=True)]
    assert torch.equal(found, torch.stack(stack))
    weights = [torch.zeros_like(each) for each in gradients]
    launched.clear()
    moving = torch.ones(found.shape[:2], dtype=torch.int8)
    descent.land_(machine, weights, [], found, found, moving, turned=turned)
    assert launched == ["land"] * 4
    assert all(map(torch.equal, weights, gradients))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moving", ["rows", "matrices"])
@pytest.mark.parametrize("given", mostly_long([*ONCE], usual=is_usual), ids=str)
def test_where_weights_land(
    machine: Machine, given: tuple[tuple[int, ...], bool], moving: str, dtype: torch.dtype
) -> None:
    """A stack with any strides, rows that rest at their start, and NaN where nobody goes."""
    weights, turned = weights_like(*given, 3)
    weights = [each.to(dtype) for each in weights]
    masters = [] if dtype is torch.float32 else [each.float() for each in weights]
    batch, n, k = descent.stack_shape(weights, turned)
    landed, start = torch.randn(batch, k, n).mT, torch.randn(batch, n, k)
    moves = torch.rand(batch, n if moving == "rows" else 1) > 0.5
    moves[0] = False
    moves = moves.expand(batch, n)
    landed[moves.logical_not()] = math.nan
    others, other_masters = copies(weights), copies(masters)
    descent.land_(machine, weights, masters, landed, start, moves.view(torch.int8), turned=turned)
    naive.land_(others, other_masters, landed, start, moves, turned=turned)
    for ours, theirs in zip((*weights, *masters), (*others, *other_masters), strict=True):
        assert torch.equal(ours, theirs)
        assert bool(ours.isfinite().all())


@pytest.mark.parametrize("size", mostly_long([1.0, 1e-30, 1e30], usual=lambda size: size == 1.0))
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    "shape",
    mostly_long(
        [(1, 1, 1), (3, 17, 20), (2, 40, 600), (1, 9, 1)], usual=lambda shape: shape[-1] < 600
    ),
    ids=str,
)
def test_unit_lengths(
    machine: Machine, shape: tuple[int, int, int], rows: bool, size: float
) -> None:
    """Matrices and rows get unit length, contiguous or transposed; zero stays zero, and NaN stays in its own unit."""
    for x in (size * torch.randn(shape), size * torch.randn(shape).mT.contiguous().mT):
        x[0, 0] = 0.0
        out = torch.empty_like(x)
        launches.unit_length(machine, x, out, rows=rows)
        wanted = naive.unit_length(x.double(), rows=rows)
        torch.testing.assert_close(out.double(), wanted, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(naive.unit_length(x, rows=rows), wanted.float())
    zero, out = torch.zeros(shape), torch.full(shape, math.nan)
    launches.unit_length(machine, zero, out, rows=rows)
    assert not bool(out.any())
    x = torch.randn(shape)
    x[-1, -1, 0] = math.nan
    launches.unit_length(machine, x, out, rows=rows)
    assert bool(out[-1, -1].isnan().all())
    assert torch.equal(out.isnan(), naive.unit_length(x, rows=rows).isnan())


@pytest.mark.parametrize(
    "values", [[1.0, 0.0, 2.0], [1.0, math.nan], [math.inf], [1e38, 3.0], [1.0] * 600], ids=len
)
def test_the_gate(machine: Machine, values: list[float]) -> None:
    largest = torch.tensor(values)
    count, bound = len(values), torch.finfo(torch.float32).max / 4
    counts, others = torch.arange(count + 2.0), torch.arange(count + 2.0)
    ok, reached = torch.zeros((), dtype=torch.int8), torch.zeros(count, dtype=torch.int8)
    launches.gate_(machine, largest, counts, ok, reached, bound)
    wanted, reaches = naive.gate_(largest, others, bound)
    assert torch.equal(ok.bool(), wanted)
    assert torch.equal(reached.bool(), reaches)
    assert torch.equal(counts, others)
    assert bool(wanted) == all(each < bound for each in values)


BOUND = Bound(0.3, 7.0, 0.8, 0.99, 1.0, 1e-3, 1e-4)


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "shape",
    mostly_long([(5, 3, 3), (4, 40, 17), (6, 70, 150)], usual=lambda shape: shape[1] < 70),
    ids=str,
)
def test_the_certificate(
    machine: Machine, shape: tuple[int, int, int], split: bool, factored: bool
) -> None:
    """The certificate of stacks with any strides; of a zero matrix, one that has failed, one of NaN, and one that is lost in full."""
    batch, n, k = shape
    a, g = torch.randn(batch, k, n).mT, -torch.randn(shape)
    g[0] = -a[0]
    omega = torch.randn(batch, 2 * k, 2 * k) / (2 * k)
    pair = (-torch.randn(batch, 2 * k, k), torch.randn(batch, k, 2 * k).mT) if split else None
    scale = torch.rand(batch) + 0.5
    scale[1], scale[2] = 0.0, math.nan
    info = torch.zeros(batch, dtype=torch.int32)
    info[2], info[3] = 1, 5
    a[3, 0] = math.nan
    outcome = info if factored else None
    mine, theirs = a.clone(), a.clone()
    found = certificate.certify_(machine, mine, g, omega, pair, scale, outcome, BOUND)
    wanted = naive.certify_(theirs, g, omega, pair, scale, outcome, BOUND)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(mine, theirs, atol=0.0, rtol=0.0, equal_nan=True)
    assert not bool(mine[1].any())
    assert float(found[1]) == 0.0
    assert bool(found[2].isnan())
    if factored:
        assert float(found[3]) == 1.0
        assert not bool(mine[3].any())


@pytest.mark.long
def test_they_pass_torchs_own_check() -> None:
    """Schemas, fakes and what is written to, on a machine without a GPU."""
    a, g, omega, scale = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.eye(6), torch.rand(2)
    pair, info = (torch.randn(2, 6, 3), torch.randn(2, 6, 3)), torch.zeros(2, dtype=torch.int32)
    numbers = [0.3, 7.0, 0.8, 0.99, 1.0, 1e-3, 1e-4]
    check = torch.library.opcheck
    stack = omega.expand(2, 6, 6).contiguous()
    check(step_operators.certify_, (a, g, stack, scale, numbers))
    check(step_operators.certify_, (a, g, stack, scale, numbers, *pair, info))
    tensors, turned = weights_like((2, 4, 3), True, 4)
    momenta, ok = [torch.randn(each.shape) for each in tensors], torch.tensor(True)
    check(step_operators.descend_, (momenta, tensors, ok, 0.9, True, turned))
    check(step_operators.descend_, ([], tensors, ok, 0.0, False, turned))
    landed, moving = torch.randn(8, 4, 3), torch.rand(8, 4) > 0.5
    check(step_operators.land_, (tensors, momenta, landed, landed + 1, moving, turned))
    check(step_operators.gate_, (torch.rand(5), torch.zeros(7), 0.9))
    for x in (torch.randn(2, 4, 3), torch.randn(2, 4, 3).mT):
        for rows in (False, True):
            check(step_operators.unit_length, (x, rows))

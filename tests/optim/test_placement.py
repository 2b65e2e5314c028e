"""Owners of weights: loads are even, cheap weights have no owner, and the printed line says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.placement import Placement, cost_of, place
from modular_manifolds.optim.weight import Weight


def weights_of(shapes: list[tuple[int, ...]], geometry: mm.Geometry) -> list[Weight]:
    return [
        Weight(f"{i}.weight", torch.empty(shape, device="meta"), geometry, 0, i, i)
        for i, shape in enumerate(shapes)
    ]


MUON = mm.Geometry(mm.Stiefel(), mm.Spectral())
GPT2_SMALL = [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * 12


@pytest.mark.parametrize("processes", [2, 3, 4, 8, 16])
def test_loads_of_gpt2_small_are_even(processes: int) -> None:
    placement = place(weights_of(GPT2_SMALL, MUON), processes, solver="auto")
    assert len(placement.owners) == len(GPT2_SMALL)
    # Square matrices take 25 products, and tall ones 45.4 of four times the size.
    assert sum(placement.loads) == pytest.approx(12 * (4 * 25 + 2 * 4 * 45.42) * 768**3, rel=1e-3)
    assert max(placement.loads) <= 1.1 * sum(placement.loads) / processes
    # Memory is nearly even too: what each process sends is little more than its part of all weights.
    total = 4 * 12 * 12 * 768**2
    assert placement.buffer_bytes <= 1.12 * total / processes


def test_the_costliest_weight_does_not_join_others() -> None:
    placement = place(weights_of([(8, 8), (8, 8), (64, 64), (8, 8)], MUON), 2, solver="auto")
    assert placement.owners == {"2.weight": 0, "0.weight": 1, "1.weight": 1, "3.weight": 1}


@pytest.mark.parametrize(
    ("geometry", "shape"),
    [
        (mm.Geometry(mm.Euclidean(), mm.RowRMS()), (50257, 768)),
        (mm.Geometry(mm.Euclidean(), mm.Frobenius()), (768, 768)),
        (mm.Geometry(mm.Sphere(), mm.Frobenius()), (768, 768)),
        (mm.Geometry(mm.Euclidean(), mm.Max()), (768, 768)),
        (mm.Geometry(mm.Oblique(), mm.RowRMS()), (768, 768)),
        (mm.Geometry(mm.Euclidean(), mm.Spectral()), (768,)),
    ],
)
def test_cheap_weights_have_no_owner(geometry: mm.Geometry, shape: tuple[int, ...]) -> None:
    (weight,) = weights_of([shape], geometry)
    assert cost_of(weight, "auto") == 0
    placement = place([weight], 4, solver="auto")
    assert placement.owners == {}
    assert placement.buffer_bytes == 0


def test_a_stack_costs_as_much_as_its_matrices() -> None:
    stack, matrix = weights_of([(5, 16, 8), (16, 8)], MUON)
    assert cost_of(stack, "auto") == 5 * cost_of(matrix, "auto") > 0


def test_the_dual_is_sent_with_the_point() -> None:
    geometry = mm.Geometry(mm.SpectralSphere(), mm.Spectral())
    placement = place(weights_of([(16, 8), (16, 8)], geometry), 2, solver="auto")
    assert placement.buffer_bytes == 4 * (16 * 8 + 2)


def test_the_placement_is_printed_with_its_cost() -> None:
    placement = place(weights_of(GPT2_SMALL, MUON), 8, solver="auto")
    assert str(placement).startswith("owner: 72 weights are solved once, by 8 processes; at most ")
    assert "sends 42.5 MB and receives 297 MB" in str(placement)
    replicated = place(weights_of(GPT2_SMALL, MUON), 8, solver="auto", replicate=True)
    assert str(replicated).startswith("replicate: each of 8 processes solves all 72 weights")
    assert replicated.imbalance == Placement(8, ()).imbalance == 1.0


def test_one_process_has_no_owners() -> None:
    opt = mm.SteepestDescent(mm.Linear(4, 4), 0.1)
    assert opt.placement.owners == {}
    assert str(opt.placement).startswith("one process solves 1 weights")


@pytest.mark.parametrize("owner", ["all", None, 3])
def test_an_unknown_owner_is_refused(owner: object) -> None:
    with pytest.raises(ArgumentError, match=r"SteepestDescent\(owner\) must be 'auto'"):
        mm.SteepestDescent(mm.Linear(4, 4), 0.1, owner=owner)  # pyright: ignore[reportArgumentType]


def test_a_copied_plan_knows_no_processes() -> None:
    import copy
    import pickle

    from modular_manifolds.wrappers import Replicas

    plan = mm.adapt(nn.Linear(4, 4), [mm.Skip("bias"), mm.Rule("*")], progress=False)
    plan.replicas.group = object()
    assert copy.deepcopy(plan).replicas.group is None
    assert pickle.loads(pickle.dumps(Replicas(object()))).group is None

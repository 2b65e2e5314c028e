"""Local bounds of ReLU chains: above every slope found in the ball, below the bound for all inputs."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.certificates import local
from modular_manifolds.certificates.ascent import steeper_points
from modular_manifolds.certificates.empirical import largest_slope
from modular_manifolds.certificates.relu_chain import chain_of, region_around
from modular_manifolds.certificates.semidefinite import (
    checked_bound,
    constraint_matrix,
    multipliers,
)
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError, SpaceError


def free(into: int, out: int) -> mm.Linear:
    linear = mm.Linear(into, out, manifold=mm.Euclidean(), norm=mm.Spectral())
    torch.nn.init.normal_(linear.weight, std=into**-0.5)
    return linear


def found_within(net: mm.Module, point: Tensor, radius: float) -> float:
    """The largest slope that the search finds in the ball."""
    centre = point.double()

    def moved(d: Tensor) -> Tensor:
        return net(centre + d)

    generator = torch.Generator().manual_seed(0)
    d = torch.randn(8, len(point), generator=generator, dtype=torch.float64)
    d = d / d.norm(dim=-1, keepdim=True) * radius * torch.linspace(0.1, 0.999, 8).unsqueeze(-1)
    norms: dict[str, Any] = {"input_norm": "l2", "output_norm": "l2", "generator": generator}
    at = steeper_points(moved, d, radius=radius, iterations=6, **norms)
    return largest_slope(moved, at, iterations=20, **norms)


def by_patterns(net: mm.Module) -> float:
    """The largest `‖B D A‖₂` over all patterns D of a network of one hidden layer."""
    first, last = (p.detach().double() for p in net.parameters())
    patterns = itertools.product((0.0, 1.0), repeat=len(first))
    masks = torch.tensor(list(patterns), dtype=torch.float64).unsqueeze(-1)
    return float(torch.linalg.matrix_norm(last @ (masks * first), 2).max())


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=4),
    radius=st.sampled_from([1e-3, 0.1, 0.5, 2.0, 100.0]),
    seed=st.integers(0, 10**6),
)
def test_no_slope_in_the_ball_is_above_the_bound(
    sizes: list[int], radius: float, seed: int
) -> None:
    torch.manual_seed(seed)
    net: mm.Module = free(sizes[0], sizes[1])
    for into, out in itertools.pairwise(sizes[1:]):
        net = net >> mm.ReLU() >> free(into, out)
    net = net.double().requires_grad_(False)
    point = torch.randn(sizes[0])
    report = mm.local_lipschitz(net, point, radius=radius)
    assert found_within(net, point, radius) <= report.bound
    assert report.bound <= report.by_norms <= report.certified
    assert report.certified == mm.lipschitz(net, iterations=0).certified
    assert report.units == sum(sizes[1:-1])


@pytest.mark.parametrize("seed", range(5))
def test_with_every_unit_undecided_the_bound_is_close_to_the_worst_pattern(seed: int) -> None:
    torch.manual_seed(seed)
    net = (free(5, 8) >> mm.ReLU() >> free(8, 3)).double()
    report = mm.local_lipschitz(net, torch.zeros(5), radius=1.0)
    assert report.undecided == 8
    assert report.status is mm.LocalStatus.SOLVED
    worst = by_patterns(net)
    assert worst <= report.bound <= 1.1 * worst
    assert report.bound < 0.95 * report.certified


def test_where_nothing_changes_its_sign_the_bound_is_the_norm_of_the_jacobian() -> None:
    net = (free(6, 9) >> mm.ReLU() >> free(9, 7) >> mm.ReLU() >> free(7, 4)).double()
    point = torch.randn(6, dtype=torch.float64)
    report = mm.local_lipschitz(net, point, radius=1e-9)
    assert (report.undecided, report.status) == (0, mm.LocalStatus.LINEAR)
    jacobian = torch.func.jacrev(net)(point)
    assert isinstance(jacobian, Tensor)
    exact = float(torch.linalg.matrix_norm(jacobian.detach(), 2))
    assert exact <= report.bound <= exact * (1 + 1e-12)
    assert report.bound < report.certified


def test_a_smaller_ball_has_a_smaller_bound() -> None:
    torch.manual_seed(0)
    net = (
        mm.Linear(6, 16) >> mm.ReLU() >> mm.Linear(16, 8) >> mm.ReLU() >> mm.Linear(8, 3)
    ).double()
    point = torch.randn(6)
    reports = [mm.local_lipschitz(net, point, radius=r) for r in (0.03, 0.1, 0.3, 1.0, 10.0)]
    bounds = [each.bound for each in reports]
    # Each is as good as its multipliers, which are raised by 1e-6 where the solver misses its tolerance.
    assert all(small <= large * (1 + 1e-6) for small, large in pairwise(bounds)), bounds
    assert bounds[0] < 0.95 * bounds[-1] < 0.95
    undecided = [each.undecided for each in reports]
    assert undecided == sorted(undecided)
    assert undecided[-1] == 24


@pytest.mark.parametrize("seed", range(20))
def test_multipliers_that_are_wrong_prove_nothing_false(seed: int) -> None:
    """The solver is not trusted: whatever it says, the bound is above the worst pattern."""
    torch.manual_seed(seed)
    net = (free(4, 6) >> mm.ReLU() >> free(6, 3)).double()
    region = region_around(chain_of(net.tree()), torch.zeros(4, dtype=torch.float64), 1.0)
    good = multipliers(region)
    assert good is not None
    worst = by_patterns(net)
    assert checked_bound(region, good[0]) >= worst
    for bad in (
        torch.zeros(6),
        torch.rand(6),
        100 * torch.rand(6),
        1e-9 * torch.rand(6),
        good[0] * (1 - 1e-4 * torch.rand(6)),
        good[0] * (torch.arange(6) != seed % 6),
    ):
        assert checked_bound(region, bad.double()) >= worst


def test_the_form_is_what_the_pairs_of_points_satisfy() -> None:
    """`ξᵀMξ = ρ‖Δx‖² − ‖Δf‖² − 2 Σ t_i u_i (c_i ξ − u_i)`, on real pairs."""
    net = (free(4, 6) >> mm.ReLU() >> free(6, 5) >> mm.ReLU() >> free(5, 3)).double()
    region = region_around(chain_of(net.tree()), torch.zeros(4, dtype=torch.float64), 10.0)
    assert region.undecided == 11
    A, B, _ = (p.detach() for p in net.parameters())
    x, y = torch.randn(2, 50, 4, dtype=torch.float64)
    first = (x @ A.T).relu() - (y @ A.T).relu()
    second = ((x @ A.T).relu() @ B.T).relu() - ((y @ A.T).relu() @ B.T).relu()
    u = torch.cat((first, second), dim=1)
    xi = torch.cat((x - y, u), dim=1)
    change = (net(x) - net(y)).detach()
    assert torch.allclose(xi @ region.output.T, change)
    slack = u * (xi @ region.preactivation.T - u)
    assert float(slack.min()) >= -1e-12
    t, rho = torch.rand(11, dtype=torch.float64), 0.7
    M = constraint_matrix(region, rho, t)
    left = (xi @ M * xi).sum(dim=1)
    right = rho * (x - y).square().sum(dim=1) - change.square().sum(dim=1) / region.slope**2
    assert torch.allclose(left, right - 2 * (slack * t).sum(dim=1))
    assert bool((u.norm(dim=1) <= region.undecided_gain * (x - y).norm(dim=1)).all())


def test_a_unit_at_its_kink_is_undecided() -> None:
    net = mm.Linear(2, 2, manifold=mm.Euclidean()) >> mm.ReLU()
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    for point, undecided in (([1.0, -2.0], 0), ([0.0, -2.0], 1), ([1.0, 0.4], 1)):
        report = mm.local_lipschitz(net, torch.tensor(point), radius=0.5)
        assert report.undecided == undecided
    assert mm.local_lipschitz(net, torch.tensor([1.0, -2.0]), radius=0.5).bound == pytest.approx(1)
    # All units off: nothing changes.
    assert mm.local_lipschitz(net, torch.tensor([-1.0, -2.0]), radius=0.5).bound == 0


def weights(*values: list[list[float]]) -> mm.Module:
    """A chain of these matrices with ReLUs between and behind, in float64."""
    parts: list[mm.Module] = []
    for value in values:
        linear = free(len(value[0]), len(value)).double()
        linear.weight.data.copy_(torch.tensor(value, dtype=torch.float64))
        parts += [linear, mm.ReLU()]
    return mm.Series(*parts)


@pytest.mark.parametrize(
    ("last", "undecided"),
    # Of (10 x₁, x₂/10) with an undecided neighbour: entry by entry the one moves by 5, the other by 0.05.
    [([0.0, 1.0, 0.0], 1), ([1.0, -70.0, 0.0], 2), ([1.0, 0.0, 0.0], 1)],
)
def test_a_unit_moves_by_what_the_units_in_front_of_it_may(
    last: list[float], undecided: int
) -> None:
    net = weights([[10.0, 0.0], [0.0, 0.1], [1.0, -1.0]], [last])
    region = region_around(chain_of(net.tree()), torch.ones(2, dtype=torch.float64), 0.5)
    assert region.undecided == undecided


def test_while_all_is_one_matrix_its_rows_count() -> None:
    """Two units of slope 10 that cancel: `10 x₁ − 9.9 x₁` moves by 0.05 only."""
    net = weights([[10.0, 0.0], [9.9, 0.0]], [[1.0, -1.0]])
    assert (
        region_around(chain_of(net.tree()), torch.ones(2, dtype=torch.float64), 0.5).undecided == 0
    )
    assert (
        region_around(chain_of(net.tree()), torch.ones(2, dtype=torch.float64), 0.99).undecided == 0
    )
    assert (
        region_around(chain_of(net.tree()), torch.ones(2, dtype=torch.float64), 1.01).undecided == 3
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_rounding_did_to_the_matrices_is_counted(seed: int) -> None:
    """An error that large could have scaled a matrix: the bound covers the network with it scaled."""
    torch.manual_seed(seed)
    net = (free(4, 6) >> mm.ReLU() >> free(6, 3)).double()
    region = region_around(chain_of(net.tree()), torch.zeros(4, dtype=torch.float64), 1.0)
    good = multipliers(region)
    assert good is not None
    for size in (0.1, 1.0):
        for name, matrix in (
            ("output_error", region.output),
            ("preactivation_error", region.preactivation),
        ):
            error = size * float(matrix.norm())
            wrong = checked_bound(replace(region, **{name: error}), good[0])
            assert wrong >= by_patterns(net) * (1 + size)


def test_linear_maps_in_a_row_and_a_relu_at_the_end_are_a_chain_too() -> None:
    net = (free(5, 4) >> free(4, 6) >> mm.Identity() >> mm.ReLU() >> mm.ReLU()).double()
    net = net.requires_grad_(False)
    point = torch.randn(5)
    report = mm.local_lipschitz(net, point, radius=0.5)
    assert report.units == 6
    assert found_within(net, point, 0.5) <= report.bound <= report.certified


def test_other_networks_are_refused_in_words() -> None:
    point = torch.zeros(4)
    for net, seen in (
        (free(4, 4) >> mm.GELU(), "GELU at '1'"),
        (free(4, 4) + free(4, 4), "Sum"),
        (free(4, 4) >> 2.0 * mm.ReLU(), "Scale at '1'"),
    ):
        with pytest.raises(
            SpaceError, match=r"must be a series of mm.Linear and mm.ReLU, got"
        ) as e:
            mm.local_lipschitz(net, point, radius=1.0)
        assert seen in str(e.value)
    net = free(4, 257) >> mm.ReLU() >> free(257, 2)
    most = free(4, 256) >> mm.ReLU() >> free(256, 2)
    assert mm.local_lipschitz(most, torch.ones(4), radius=1e-9).units == 256
    with pytest.raises(ArgumentError, match="must have at most 256 units, got 257"):
        mm.local_lipschitz(net, point, radius=1.0)
    small = free(4, 4) >> mm.ReLU()
    with pytest.raises(ShapeError, match=r"must be of shape \(4,\), as the network takes, or a "):
        mm.local_lipschitz(small, torch.zeros(2, 4), radius=1.0)
    with pytest.raises(ShapeError, match="must have 4 features, as the network takes, got 3"):
        mm.local_lipschitz(small, torch.zeros(3), radius=1.0)
    with pytest.raises(NonFiniteError, match="must be finite"):
        mm.local_lipschitz(small, torch.full((4,), math.nan), radius=1.0)
    with pytest.raises(ArgumentError, match="radius must be finite and positive"):
        mm.local_lipschitz(small, point, radius=0.0)


def test_without_cvxpy_only_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    net = mm.Linear(4, 4) >> mm.ReLU()
    net.get_parameter("0.weight").data.copy_(torch.eye(4))
    assert mm.local_lipschitz(net, torch.ones(4), radius=0.5).bound == pytest.approx(1)
    with pytest.raises(ArgumentError, match="needs the library cvxpy") as e:
        mm.local_lipschitz(net, torch.ones(4), radius=2.0)
    assert "pip install 'modular-manifolds[local]'" in str(e.value)


def test_what_the_solver_does_not_give_is_made_up_by_norms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, point = free(4, 6) >> mm.ReLU() >> free(6, 3), torch.zeros(4)
    found = multipliers(region_around(chain_of(net.tree()), point.double(), 1.0))
    assert found is not None
    for given_up in (None, (torch.zeros(6, dtype=torch.float64), True)):
        monkeypatch.setattr(local, "multipliers", lambda _, answer=given_up: answer)
        report = mm.local_lipschitz(net, point, radius=1.0)
        assert (report.status, report.bound) == (mm.LocalStatus.BY_NORMS, report.by_norms)
    # Linear maps in a row are multiplied out for all inputs, and not by norms.
    two = free(4, 6) >> free(6, 6) >> mm.ReLU()
    report = mm.local_lipschitz(two, point, radius=1.0)
    assert report.bound == report.by_norms == report.certified
    monkeypatch.setattr(local, "multipliers", lambda _: (found[0], False))
    report = mm.local_lipschitz(net, point, radius=1.0)
    assert report.status is mm.LocalStatus.INACCURATE
    assert "6 of 6 units undecided; INACCURATE: The solver stopped" in str(report)

"""The search for steep places: uphill only, within the radius, and higher than where it began."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.certificates import ascent
from modular_manifolds.certificates.ascent import steeper_points
from modular_manifolds.certificates.empirical import DUALS, largest_slope, power_step, vector_norm
from modular_manifolds.linalg.ascent import climb

NORMS: tuple[mm.VectorNorm, ...] = get_args(mm.VectorNorm)


class Square(mm.Bond):
    """`x²/2`: the slope is the largest entry."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def forward(self, x: Tensor) -> Tensor:
        return x.square() / 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_row_climbs_to_its_own_top() -> None:
    tops = torch.randn(20, 3, dtype=torch.float64)
    start = tops + torch.randn(20, 3, dtype=torch.float64)
    kept = start.clone()
    step = torch.full((20, 1), 0.3, dtype=torch.float64)
    x, left = climb(lambda x: -(x - tops).norm(dim=-1), start, step, rounds=60, generator=seeded())
    # The last steps go past the top and come back: a bar well above their length.
    assert float((x - tops).norm(dim=-1).max()) < 0.1
    assert bool((left < step).all())
    assert torch.equal(start, kept)


def test_no_row_ends_lower_and_none_leaves_what_is_searched() -> None:
    def rough(x: Tensor) -> Tensor:
        return (7 * x).sin().sum(dim=-1) / x.square().sum(dim=-1)

    start = torch.randn(50, 2, dtype=torch.float64)
    x, _ = climb(
        rough,
        start,
        torch.ones(50, 1).double(),
        rounds=25,
        generator=seeded(),
        keep=lambda x: x.clamp(-1, 1),
    )
    moved = (x != start).any(dim=-1)
    assert bool(moved.any())
    assert bool((rough(x) >= rough(start)).all())
    assert float(x[moved].abs().max()) <= 1


def test_where_all_is_flat_the_direction_is_random() -> None:
    """The steps of a stair have no gradient, and no gradient at all where nothing depends on x."""
    start = torch.zeros(30, 2, dtype=torch.float64)
    step = torch.full((30, 1), 3.0, dtype=torch.float64)
    x, _ = climb(lambda x: x[:, 0].floor(), start, step, rounds=20, generator=seeded())
    assert float(x[:, 0].floor().min()) >= 0
    assert float(x[:, 0].floor().max()) >= 3
    same, _ = climb(lambda x: torch.ones(len(x)), start, step, rounds=3, generator=seeded())
    assert torch.equal(same, start)


def operator_norm(weight: Tensor, given: mm.VectorNorm, wanted: mm.VectorNorm) -> float:
    """Exact where it is a maximum over the corners of a polytope, and in l2."""
    m, n = weight.shape
    if given in ("l2", "rms") and wanted in ("l2", "rms"):
        exact = float(torch.linalg.matrix_norm(weight, 2))
        return exact * (n**0.5 if given == "rms" else 1) / (m**0.5 if wanted == "rms" else 1)
    if given in ("l1", "linf"):
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n))).double()
        corners = torch.eye(n).double() if given == "l1" else signs
        return float(vector_norm(corners @ weight.T, wanted).max())
    # From l2 to l1 or linf: the transpose from linf or l1 to l2.
    back = operator_norm(weight.T, DUALS[wanted], "l2")
    return back * (n**0.5 if given == "rms" else 1)


@pytest.mark.parametrize("given", NORMS)
@pytest.mark.parametrize("wanted", NORMS)
def test_directions_improve_in_every_norm_and_reach_the_operator_norm(
    given: mm.VectorNorm, wanted: mm.VectorNorm
) -> None:
    weight = torch.randn(5, 7, dtype=torch.float64)
    at = torch.randn(64, 7, dtype=torch.float64)
    v, before = torch.randn_like(at), torch.zeros(64, dtype=torch.float64)
    for _ in range(30):
        slopes, v, _ = power_step(lambda x: x @ weight.T, at, v, given, wanted)
        assert bool((slopes >= before * (1 - 1e-12)).all())
        before = slopes
    exact = operator_norm(weight, given, wanted)
    assert exact * (1 - 1e-3) <= float(before.max()) <= exact * (1 + 1e-12)


def networks() -> dict[str, tuple[mm.Module, float | None]]:
    """Networks whose slope depends on the point."""

    def layer(into: int, out: int) -> mm.Linear:
        return mm.Linear(into, out, manifold=mm.Sphere(radius=4.0), norm=mm.Frobenius())

    relu = layer(20, 64) >> mm.ReLU() >> layer(64, 64) >> mm.ReLU() >> layer(64, 5)
    gelu = mm.Linear(16, 32) >> mm.GELU() >> mm.Linear(32, 16) >> mm.GELU() >> mm.Linear(16, 4)
    square = mm.Linear(8, 8) >> Square() >> mm.Linear(8, 4)
    return {"relu": (relu, None), "gelu": (gelu, None), "square": (square, 3.0)}


@pytest.mark.parametrize("name", networks())
def test_the_search_finds_more_than_the_points_it_starts_from(name: str) -> None:
    net, radius = networks()[name]
    net = net.double().requires_grad_(False)
    space = net.source
    assert isinstance(space, mm.Space)
    points = torch.randn(16, space.size, dtype=torch.float64)
    if radius is not None:
        points = points / points.norm(dim=-1, keepdim=True) * radius * (1 - 1e-9)
    fixed = largest_slope(
        net, points, input_norm="l2", output_norm="l2", iterations=60, generator=seeded()
    )
    report = mm.lipschitz(net, points=points, radius=radius)
    assert 1.1 * fixed < report.empirical <= report.certified


def test_a_slope_whose_largest_value_is_known_is_found() -> None:
    """`x²/2` after an orthogonal map is steepest, 3, in the direction of one of its rows."""
    report = mm.lipschitz(mm.Linear(8, 8) >> Square(), radius=3.0)
    assert 0.999 * 3 < report.empirical <= report.certified


def test_points_climb_higher_than_the_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the climb on the slope itself the search of a smooth network ends clearly lower."""
    net = networks()["gelu"][0]
    both = mm.lipschitz(net).empirical

    def pairs_only(*args: Any, rounds: int, **rest: Any) -> tuple[Tensor, Tensor]:
        return climb(*args, rounds=0 if rounds == ascent.CLIMBING_STEPS else rounds, **rest)

    monkeypatch.setattr(ascent, "climb", pairs_only)
    assert mm.lipschitz(net).empirical < 0.99 * both


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_within_the_radius_and_the_first_are_those_given(norm: mm.VectorNorm) -> None:
    net = (mm.Linear(6, 6) >> Square()).double().requires_grad_(False)
    at = torch.randn(8, 6, dtype=torch.float64)
    at = at / vector_norm(at, norm).unsqueeze(-1)
    found = steeper_points(
        net, at, input_norm=norm, output_norm="l2", radius=1.5, iterations=12, generator=seeded()
    )
    assert torch.equal(found[:8], at)
    sizes = vector_norm(found, norm)
    # A length and a quotient are rounded.
    assert 1.4 < float(sizes.max()) <= 1.5 * (1 + 8 * torch.finfo(torch.float64).eps)


def test_a_point_at_zero_is_left() -> None:
    net = mm.Linear(6, 6) >> Square()
    report = mm.lipschitz(net, points=torch.zeros(2, 6), radius=2.0)
    assert report.empirical > 1.9


def test_a_search_of_no_points_or_no_steps_finds_nothing() -> None:
    net = mm.Linear(6, 6) >> mm.ReLU()
    assert mm.lipschitz(net, points=torch.zeros(0, 6)).empirical == 0
    assert mm.lipschitz(net, iterations=0).empirical == 0

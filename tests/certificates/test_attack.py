"""The attack that stands beside certificates: strong, cheap, and of no say in what is certified."""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.errors import ShapeError


def mlp() -> mm.Module:
    return mm.Linear(6, 16) >> mm.ReLU() >> mm.Linear(16, 8) >> mm.MaxMin() >> mm.Linear(8, 4)


def predicted(net: mm.Module, x: Tensor) -> Tensor:
    return net(x).argmax(dim=1).detach()


RADII = [0.02, 0.1, 0.3, 0.5]


def test_the_attack_breaks_no_certified_point_and_leaves_the_generator_alone() -> None:
    net, x = mlp(), torch.randn(200, 6)
    labels = predicted(net, x)
    state = torch.random.get_rng_state()
    attack = mm.ProjectedGradient(steps=10, restarts=2)
    report = mm.robustness(net, x, labels, radii=RADII, attack=attack)
    assert torch.equal(torch.random.get_rng_state(), state)
    left = [row.attacked or 0.0 for row in report.rows]
    assert all(row.certified <= part for row, part in zip(report.rows, left, strict=True))
    assert left[-1] < 0.6
    assert "attack: projected gradient on the margin, 10 steps, 2 starts; no certified" in str(
        report
    )


def long_search(model: nn.Module, points: Tensor, labels: Tensor, radius: float) -> Tensor:
    """Much more work than a cheap attack: towards every class, from many starts, in many steps."""
    classes = model(points).shape[1]
    best, margins = points.clone(), torch.full((len(points),), -math.inf).to(points)
    for start in range(2):
        for wanted in range(classes):
            direction = torch.randn_like(points)
            length = radius * torch.rand(len(points), 1).to(points)
            x = points + (start > 0) * length * direction / direction.norm(dim=1, keepdim=True)
            for step in range(40):
                x = x.detach().requires_grad_()
                scores = model(x)
                own = scores.gather(1, labels[:, None]).squeeze(1)
                (slope,) = torch.autograd.grad((scores[:, wanted] - own).sum(), x)
                with torch.no_grad():
                    others = scores.scatter(1, labels[:, None], -math.inf).amax(dim=1)
                    better = others - own > margins
                    margins, best[better] = torch.maximum(margins, others - own), x[better]
                    size = slope.norm(dim=1, keepdim=True).clamp_min(1e-300)
                    moved = x + 0.2 * radius * (1 - step / 40) * slope / size - points
                    far = moved.norm(dim=1, keepdim=True).clamp_min(1e-300)
                    x = points + moved * (radius / far).clamp(max=1)
    return best


@cache
def clusters() -> tuple[mm.Module, Tensor, Tensor]:
    """Ten clusters in 48 dimensions, and a network that was fitted to them without care for margins."""
    torch.manual_seed(4)
    centres = torch.nn.functional.normalize(torch.randn(10, 48), dim=1)
    labels = torch.arange(80) % 10
    points = 1.2 * centres[labels] + 0.15 * torch.randn(80, 48)
    stretched = mm.Linear(48, 32) >> mm.ReLU() >> mm.Linear(32, 32) >> mm.ReLU()
    net = stretched >> mm.Linear(32, 10, manifold=mm.Euclidean())
    descent = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(60):
        descent.zero_grad()
        torch.nn.functional.cross_entropy(net(points), labels).backward()
        descent.step()
    return net, points, labels


@pytest.mark.long
def test_the_attack_is_nearly_as_strong_as_a_much_longer_one() -> None:
    net, points, labels = clusters()
    radii = [0.5, 0.6, 0.7]
    cheap, long = (
        mm.robustness(net, points, labels, radii=radii, attack=attack)
        for attack in (mm.ProjectedGradient(), long_search)
    )
    spread = [row.attacked or 0.0 for row in long.rows]
    told = min(spread) < 0.9 and max(spread) > 0.1
    assert told, "radii that all leave nothing, or everything, tell nothing"
    for ours, theirs in zip(cheap.rows, long.rows, strict=True):
        # Both are searches: four points of 80, counted because shares of points are rounded.
        left = round(80 * (ours.attacked or 0.0)) - round(80 * (theirs.attacked or 0.0))
        assert left <= 4
        assert ours.certified <= (ours.attacked or 0.0)


def test_on_a_linear_map_the_attack_finds_the_best_point() -> None:
    """All steps together are longer than a diameter, so even the last point of one start is at the edge."""
    for steps, restarts in ((1, 1), (7, 1), (40, 3)):
        net = mm.Linear(6, 2, manifold=mm.Euclidean()).double()
        x, radius = torch.randn(30, 6, dtype=torch.float64), 0.05
        labels = predicted(net, x)
        found = mm.ProjectedGradient(steps, restarts)(net, x, labels, radius)
        weight = net.weight.detach()
        apart = (weight[labels] - weight[1 - labels]).norm(dim=1)
        rows = torch.arange(30)
        scores = net(x).detach(), net(found).detach()
        gaps = [each[rows, labels] - each[rows, 1 - labels] for each in scores]
        torch.testing.assert_close(gaps[0] - gaps[1], radius * apart, rtol=1e-9, atol=0)


@pytest.mark.parametrize("factor", [1e-3, 20.0, 100.0, 1e6])
def test_the_attack_does_not_depend_on_the_scale_of_the_outputs(factor: float) -> None:
    net, points, labels = clusters()
    attack = mm.ProjectedGradient(steps=10, restarts=2)
    plain, scaled = (
        mm.robustness(each, points, labels, radii=[0.5, 0.7], attack=attack)
        for each in (net, factor * net)
    )
    assert [row.attacked for row in scaled.rows] == [row.attacked for row in plain.rows]


def test_the_attack_keeps_its_best_point_within_the_radius() -> None:
    net, points, labels = clusters()
    wrong = (labels + 1) % 10
    for dtype in (torch.float32, torch.float64):
        model, x = copy.deepcopy(net).to(dtype), points.to(dtype)
        for given, radius in ((labels, 0.3), (wrong, 0.3), (labels, 0.0)):
            found = mm.ProjectedGradient(steps=5, restarts=2)(model, x, given, radius)
            assert found.dtype == dtype
            assert float((found - x).norm(dim=1).max()) <= radius * (1 + 1e-6)
            rows = torch.arange(len(x))

            def margins(
                at: Tensor, given: Tensor = given, model: nn.Module = model, rows: Tensor = rows
            ) -> Tensor:
                scores = model(at).detach()
                others = scores.scatter(1, given[:, None], -math.inf).amax(dim=1)
                return others - scores[rows, given]

            before, after = margins(x), margins(found)
            # The batch is another one when the margin is measured here.
            assert bool((after >= before - 1e-5 * before.abs()).all())
            # A point that is wrong already has fallen, and is not moved on.
            if given is wrong:
                assert float((before > 0).double().mean()) > 0.9


def test_the_attack_takes_a_function_and_images_and_flat_places() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(20, 1, 2, 2, dtype=torch.float64)

    def model(images: Tensor) -> Tensor:
        # Flat in half of the space: there the attack looks in random directions.
        return (images.flatten(1) @ weight.T).clamp_min(0.0)

    labels = model(x).argmax(dim=1)
    found = mm.ProjectedGradient()(model, x, labels, 2.0)  # pyright: ignore[reportArgumentType]
    assert found.shape == x.shape
    assert bool(torch.isfinite(found).all())
    assert float((model(found).argmax(dim=1) != labels).double().mean()) > 0.5


def test_somebody_else_s_attack_breaks_no_certified_point_and_is_not_stronger() -> None:
    foolbox = pytest.importorskip("foolbox", reason="foolbox, or git, is not installed")
    net, points, labels = clusters()

    def theirs(model: nn.Module, x: Tensor, y: Tensor, radius: float) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(-9, 9), device="cpu")
        descent = foolbox.attacks.L2ProjectedGradientDescentAttack(steps=10)
        return descent(wrapped, x, y, epsilons=radius)[0]

    found, ours = (
        mm.robustness(net, points, labels, radii=[0.6], attack=attack).rows[0]
        for attack in (theirs, mm.ProjectedGradient())
    )
    assert found.certified <= (found.attacked or 0.0)
    assert (ours.attacked or 0.0) <= (found.attacked or 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_attack_that_loses_its_points_breaks_nothing(value: float) -> None:
    net, x = mlp(), torch.randn(20, 6)

    def lost(_: nn.Module, points: Tensor, __: Tensor, ___: float) -> Tensor:
        return torch.full_like(points, value)

    report = mm.robustness(net, x, predicted(net, x), radii=[0.1], attack=lost)
    assert report.rows[0].attacked == 1.0
    with pytest.raises(ShapeError, match=r"robustness\(attack\) must return points of the shape"):
        mm.robustness(net, x, predicted(net, x), attack=lambda _, points, __, ___: points[:1])

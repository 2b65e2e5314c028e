"""Certified predictions: radii as the margin rule has them, and no attack that gets through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.certificates.margins import rounding_of_outputs
from modular_manifolds.errors import ArgumentError, CertificateError, NonFiniteError, ShapeError


def mlp() -> mm.Module:
    return mm.Linear(6, 16) >> mm.ReLU() >> mm.Linear(16, 8) >> mm.MaxMin() >> mm.Linear(8, 4)


def with_weight(weight: Tensor) -> mm.Linear:
    out, into = weight.shape
    linear = mm.Linear(into, out, manifold=mm.Euclidean(), norm=mm.Spectral())
    linear.weight.data.copy_(weight)
    return linear


def predicted(net: mm.Module, x: Tensor) -> Tensor:
    return net(x).argmax(dim=1).detach()


class Downhill:
    """An attack that needs no library: steps against the margin, each of them as long as the radius."""

    def __call__(self, model: nn.Module, points: Tensor, labels: Tensor, radius: float) -> Tensor:
        x = points.clone()
        for _ in range(10):
            x.requires_grad_()
            scores = model(x)
            others = scores.scatter(1, labels[:, None], -math.inf).amax(dim=1)
            margins = scores.gather(1, labels[:, None]).squeeze(1) - others
            (slope,) = torch.autograd.grad(margins.sum(), x)
            x = points - radius * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return x


@pytest.mark.parametrize("stretched", [False, True])
def test_the_radius_of_a_linear_map_is_the_distance_to_the_decision_boundary(
    stretched: bool,
) -> None:
    last, x = with_weight(torch.randn(5, 7)), torch.randn(200, 7)
    net = with_weight(3.0 * torch.eye(7)) >> last if stretched else last
    labels = predicted(net, x)
    report = mm.robustness(net, x, labels)
    w = last.weight.detach().double()
    for point, label, radius in zip(x.double(), labels, report.radii, strict=True):
        gaps = [
            float((w[label] - w[j]) @ point / (w[label] - w[j]).norm())
            for j in range(5)
            if j != label
        ]
        assert min(gaps) * (1 - 1e-9) <= radius <= min(gaps)
    assert report.pairs


def test_without_a_last_weight_the_margin_is_over_root_two_times_the_bound() -> None:
    net = with_weight(3.0 * torch.eye(3)) >> mm.ReLU()
    x = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.7]])
    report = mm.robustness(net, x, torch.tensor([0, 2]))
    assert report.radii == pytest.approx([1 / math.sqrt(2), 0.2 / math.sqrt(2)], rel=1e-6)
    assert not report.pairs
    assert report.lipschitz == pytest.approx(3.0)


def test_the_rule_by_pairs_is_never_the_looser_one() -> None:
    net, x = mlp() >> mm.ReLU() >> with_weight(torch.randn(5, 4)), torch.randn(300, 6)
    labels = predicted(net, x)
    by_pairs = mm.robustness(net, x, labels).radii
    # The same function, whose last module is no longer a Linear.
    plain = mm.robustness(net >> mm.Identity(), x, labels).radii
    assert all(a >= b for a, b in zip(by_pairs, plain, strict=True))
    assert sum(by_pairs) > 1.02 * sum(plain)


def test_ties_and_wrong_predictions_are_certified_nowhere() -> None:
    net = with_weight(torch.eye(3))
    x = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    report = mm.robustness(net, x, torch.tensor([0, 1, 0]), radii=[0, 0.5])
    assert report.radii[:2] == (0.0, 0.0)
    assert report.clean == pytest.approx(2 / 3)
    assert [row.certified for row in report.rows] == pytest.approx([1 / 3, 1 / 3])


def test_the_edge_of_the_radius_is_not_certified() -> None:
    """At the true distance, 1/√2 here, the two classes tie."""
    net = with_weight(torch.eye(2))
    report = mm.robustness(net, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), radii=[])
    (radius,) = report.radii
    assert radius < 1 / math.sqrt(2)
    assert report.certified(radius) == 0.0
    assert report.certified(math.nextafter(radius, 0)) == 1.0


class Shift(mm.Bond):
    """`x + shift` in every entry: f(0) is not 0. It bounds its rounding, or says nothing of it."""

    def __init__(self, shift: float, size: int, known: bool) -> None:
        super().__init__(offset=shift * math.sqrt(size) * (1 + 1e-12))
        self.shift, self.known = shift, known

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        if not self.known:
            return super().rounding_within(radius, dtype)
        return torch.finfo(dtype).eps * (radius + self._offset)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_the_bound_on_the_rounding_of_the_forward_pass_holds(
    shift: float, known: bool, size: float
) -> None:
    net = mm.Linear(60, 50) >> Shift(shift, 50, known) >> mm.ReLU() >> mm.Linear(50, 20)
    net = net.double()
    x = size * torch.randn(200, 60, dtype=torch.float64)
    first, last = (p.detach().numpy().astype(np.longdouble) for p in net.parameters())
    hidden = x.numpy().astype(np.longdouble) @ first.T + np.longdouble(shift)
    exact = np.maximum(hidden, 0) @ last.T
    wrong = np.linalg.norm((net(x).detach().numpy() - exact).astype(float), axis=1)
    radius = float(x.norm(dim=1).max())
    bound = rounding_of_outputs(net.tree(), radius)
    assert 0 < wrong.max() <= bound < 1e-10 * (radius + 10 * shift)


def test_a_margin_that_an_offset_may_have_rounded_is_not_certified() -> None:
    """Beside an offset of 1e6 a margin of 1e-12 is rounding, however short the input."""
    net = (
        with_weight(torch.eye(2)) >> Shift(1e6, 2, known=False) >> with_weight(torch.eye(2))
    ).double()
    x = torch.tensor([[1e-9, 0.0], [1e-6, 0.0]], dtype=torch.float64)
    report = mm.robustness(net, x, torch.tensor([0, 0]))
    assert report.clean == 1.0
    assert report.radii[0] == 0.0
    assert 0 < report.radii[1] < 1e-6
    last = (with_weight(torch.eye(2)) >> Shift(1e6, 2, known=False)).double()
    assert mm.robustness(last, x, torch.tensor([0, 0])).radii[0] == 0.0


def test_a_margin_that_rounding_may_have_made_is_not_certified() -> None:
    net = with_weight(torch.eye(2)).double()
    x = torch.tensor([[1 + 2.0**-52, 1.0], [1 + 2.0**-40, 1.0]], dtype=torch.float64)
    report = mm.robustness(net, x, torch.tensor([0, 0]))
    assert report.clean == 1.0
    assert report.radii[0] == 0.0
    assert 0 < report.radii[1] < 2.0**-40 / math.sqrt(2)


def test_radii_are_in_the_units_that_the_scale_names() -> None:
    net, x = mlp(), torch.randn(50, 6)
    labels = predicted(net, x)
    std = torch.tensor([0.25, 0.5, 0.3, 0.25, 1.0, 2.0])
    scale = mm.InputScale(torch.full((6,), 0.5), std, "pixels")
    plain, scaled = mm.robustness(net, x, labels), mm.robustness(net, x, labels, scale=scale)
    assert scaled.radii == pytest.approx([0.25 * each for each in plain.radii], rel=1e-5)
    assert torch.allclose(scale.seen(scale.undone(x)), x, atol=1e-6)
    assert "radii in pixels; a step of 1 in the network's input is at least 0.25" in str(scaled)
    assert "radii in units of the network's input" in str(plain)


def test_an_attack_that_knows_no_library_breaks_what_is_not_certified_only() -> None:
    """With unequal scales: the attack moves in the units of the radius."""
    net, x = mlp(), torch.randn(300, 6)
    labels = predicted(net, x)
    scale = mm.InputScale(torch.zeros(6), torch.tensor([0.2, 1.0, 1.0, 1.0, 1.0, 1.0]), "units")
    radii = [0.01, 0.05, 0.2, 1.0]
    report = mm.robustness(net, x, labels, scale=scale, radii=radii, attack=Downhill())
    left = [row.attacked or 0.0 for row in report.rows]
    assert all(a >= row.certified for a, row in zip(left, report.rows, strict=True))
    # Most points fall within the largest radius, whatever the network's random weights.
    assert left[-1] < 0.6
    assert left == sorted(left, reverse=True)


class Tripled(mm.Bond):
    """Declares that it does not stretch, and does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, 3.0 * x, x)


@pytest.mark.parametrize("attack", [Downhill(), mm.ProjectedGradient(steps=10, restarts=1)])
def test_a_certified_point_that_falls_is_not_passed_over(attack: object) -> None:
    net = mm.Linear(6, 6) >> Tripled() >> with_weight(torch.eye(6))
    x = torch.randn(200, 6)
    with pytest.raises(CertificateError, match=r"point \d+ must keep its class within the l2") as e:
        mm.robustness(net, x, predicted(net, x), radii=[0.1, 0.3, 1.0], attack=attack)  # pyright: ignore[reportArgumentType]
    assert "check_module" in str(e.value)


class Unbounded(mm.Bond):
    """Grows with the cube of its input."""

    def __init__(self) -> None:
        super().__init__(sensitivity=3.0)

    def lipschitz_within(self, radius: float) -> float:
        return 3 * radius**2

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().sum(dim=-1, keepdim=True)


def test_a_network_without_a_bound_is_told_where_and_what_to_do() -> None:
    net, x = mm.Linear(6, 6) >> Unbounded() >> mm.Linear(6, 3), torch.randn(20, 6)
    report = mm.robustness(net, x, predicted(net, x))
    assert set(report.radii) == {0.0}
    assert report.clean == 1.0
    assert "nothing is certified, because the bound is infinite: 1 (Unbounded); replace" in str(
        report
    )


def test_the_report_reads_well() -> None:
    net, x = mlp(), torch.randn(20, 6)
    lines = str(mm.robustness(net, x, predicted(net, x), radii=[0.5, 36 / 255])).splitlines()
    assert lines[0].split() == ["l2", "radius", "certified"]
    assert lines[2].split() == ["0", "(clean)", "100.0", "%"]
    assert lines[3].startswith("36/255 ")
    assert lines[4].startswith("0.5 ")
    assert "20 points" in lines[5]


def test_a_report_does_not_change_the_network() -> None:
    net = mlp().train()
    x = torch.randn(20, 6)
    mm.robustness(net, x, predicted(net, x), attack=Downhill())
    assert net.training
    assert all(
        p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in net.parameters()
    )


def test_bad_arguments_are_refused_in_words() -> None:
    net, x, labels = mlp(), torch.randn(5, 6), torch.zeros(5, dtype=torch.int64)
    for bad in (labels[:3], labels[:0]):
        with pytest.raises(ShapeError, match=r"must be of shapes .* got \(5, 6\) and \(\d,\)"):
            mm.robustness(net, x, bad)
    with pytest.raises(ShapeError, match="must have 6 features, as the network takes, got 5"):
        mm.robustness(net, x[:, :5], labels)
    with pytest.raises(ArgumentError, match="whole numbers from 0 to 3, got 4 to 4"):
        mm.robustness(net, x, labels + 4)
    with pytest.raises(ArgumentError, match="must be finite and at least 0, got -1"):
        mm.robustness(net, x, labels, radii=[-1])
    with pytest.raises(NonFiniteError, match=r"robustness\(inputs\) must be finite"):
        mm.robustness(net, torch.full((5, 6), torch.nan), labels)
    with pytest.raises(ArgumentError, match="must be a modular_manifolds module"):
        mm.robustness(nn.Linear(6, 4), x, labels)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match=r"InputScale\(std\) must be positive"):
        mm.InputScale(torch.zeros(2), torch.tensor([1.0, 0.0]), "units")
    with pytest.raises(ArgumentError, match=r"ProjectedGradient\(restarts\) must be a positive"):
        mm.ProjectedGradient(restarts=0)

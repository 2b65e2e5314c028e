"""Bounds hold, and measurements stay below them."""

from __future__ import annotations

import math

import pytest
import torch
from long_tests import mostly_long
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError

NORMS = ("rms", "l2", "l1", "linf")


def length(x: torch.Tensor, norm: str) -> torch.Tensor:
    if norm == "rms":
        return x.square().mean(dim=-1).sqrt()
    return torch.linalg.vector_norm(x, ord={"l2": 2, "l1": 1, "linf": math.inf}[norm], dim=-1)


def networks() -> dict[str, mm.Module]:
    """Networks of every composition; weights of some are off their manifold or on none."""
    euclidean = mm.Linear(6, 6, manifold=mm.Euclidean(), norm=mm.Spectral())
    rows = mm.Linear(
        6, 5, manifold=mm.Oblique(), norm=mm.RowRMS(), source_norm="l2", target_norm="l2"
    )
    off = mm.Linear(6, 6)
    with torch.no_grad():
        off.weight.mul_(3.0)
    return {
        "mlp": mm.Linear(6, 8) >> mm.ReLU() >> mm.Linear(8, 4),
        "euclidean": euclidean >> mm.GELU() >> 0.5 * mm.Linear(6, 6),
        "residual": mm.Residual(mm.Linear(6, 6) >> mm.MaxMin(), depth=2) ** 2 >> rows,
        "sum": (mm.Linear(6, 6) + -2.0 * mm.Identity()) >> mm.Abs() >> mm.Linear(6, 3),
        "off": off >> mm.ReLU() >> mm.Linear(6, 4),
        "rms": mm.Linear(6, 9, norm=mm.RMSOperator()) >> mm.Abs(),
    }


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("input_norm", mostly_long(NORMS, usual=2))
@pytest.mark.parametrize("output_norm", mostly_long(NORMS, usual=3))
def test_no_pair_of_inputs_beats_the_certified_bound(
    name: str, input_norm: mm.VectorNorm, output_norm: mm.VectorNorm
) -> None:
    net = networks()[name].double()
    report = mm.lipschitz(
        net, input_norm=input_norm, output_norm=output_norm, starts=4, iterations=3
    )
    assert report.empirical <= report.certified
    for row in report.rows:
        assert row.empirical is not None
        assert 0 < row.empirical <= row.certified
    x = torch.randn(500, 6, dtype=torch.float64)
    kinds = [
        torch.randn_like(x),
        torch.sign(torch.randn_like(x)),
        torch.eye(6, dtype=torch.float64)[torch.randint(6, (500,))],
    ]
    for direction in kinds:
        for size in (1e-3, 1.0, 100.0):
            y = x + size * direction
            moved = length(net(x).detach() - net(y).detach(), output_norm)
            assert bool((moved <= report.certified * length(x - y, input_norm) * (1 + 1e-9)).all())


def test_declared_is_the_product_on_the_manifold() -> None:
    net = 2.0 * mm.Linear(6, 8, manifold=mm.Stiefel(radius=1.5)) >> mm.ReLU() >> mm.Linear(8, 4)
    report = mm.lipschitz(net)
    assert report.declared == pytest.approx(3.0)
    assert report.certified == pytest.approx(3.0, rel=1e-5)
    assert (report.input_norm, report.output_norm) == ("l2", "l2")


def test_norms_are_converted_at_the_ends_only() -> None:
    net = mm.Linear(6, 8) >> mm.ReLU() >> mm.Linear(8, 4)
    own = mm.lipschitz(net).declared
    assert mm.lipschitz(net, input_norm="rms", output_norm="rms").declared == pytest.approx(
        own * math.sqrt(6 / 4)
    )


def test_a_single_linear_map_is_tight() -> None:
    report = mm.lipschitz(mm.Linear(20, 30))
    assert report.tightness <= 1.05


def test_weights_off_their_manifold_are_seen() -> None:
    report = mm.lipschitz(networks()["off"])
    assert report.declared == pytest.approx(1.0)
    assert report.certified == pytest.approx(3.0, rel=1e-5)
    rows = mm.conditioning(networks()["off"]).rows
    assert rows[0].residual == pytest.approx(8.0, rel=1e-4)
    assert rows[1].residual <= 1e-6


def test_an_unbounded_manifold_is_named() -> None:
    report = mm.lipschitz(networks()["euclidean"])
    assert math.isinf(report.declared)
    assert math.isfinite(report.certified)
    assert "the weights of 0 are on an unbounded manifold" in str(report)


def test_certified_is_rounded_up() -> None:
    """A power iteration or a float32 decomposition may come out below the true norm; this may not."""
    for seed in range(20):
        torch.manual_seed(seed)
        net = mm.Linear(40, 40, manifold=mm.Euclidean(), norm=mm.Spectral()).double()
        exact = float(torch.linalg.matrix_norm(net.weight.detach(), 2))
        assert mm.lipschitz(net, starts=1, iterations=1).certified > exact


def test_given_points_are_searched() -> None:
    net = mm.Linear(6, 6) >> mm.ReLU()
    dead = mm.lipschitz(net, points=torch.zeros(2, 6))
    alive = mm.lipschitz(net, points=torch.randn(16, 6))
    # Both searches may end at the bound of 1, each within its own small step.
    assert dead.empirical <= alive.empirical + 1e-6
    assert alive.empirical <= 1 + 1e-6


def test_bad_arguments_are_refused_in_words() -> None:
    with pytest.raises(
        ArgumentError, match="input_norm must be one of rms, l2, l1, linf, got 'l3'"
    ):
        mm.lipschitz(mm.Linear(3, 3), input_norm="l3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpaceError, match="must map one space to one space, got any space to same"):
        mm.lipschitz(mm.ReLU())
    with pytest.raises(SpaceError, match="must map one space to one space"):
        mm.lipschitz(mm.Linear(3, 3) | mm.Linear(3, 3))
    for function in (mm.lipschitz, mm.conditioning):
        with pytest.raises(ArgumentError, match="must be a modular_manifolds module"):
            function(nn.Linear(3, 3))  # pyright: ignore[reportArgumentType]


def test_reports_read_well() -> None:
    net = mm.Linear(6, 8) >> mm.ReLU() >> mm.Linear(8, 4)
    text = str(mm.lipschitz(net))
    assert "Linear(6, 8)" in text
    assert "declared 1, certified 1" in text
    lines = str(mm.conditioning(net)).splitlines()
    assert lines[0].split() == [
        "weight", "manifold", "largest", "σ", "smallest", "σ", "condition", "off", "manifold",
    ]  # fmt: skip
    assert len(lines) == 4


def test_a_vector_has_no_condition_number_whatever_its_length() -> None:
    net = mm.Linear(3, 3) >> mm.Gain(3) >> mm.Bias(3)
    weight, gain, bias = mm.conditioning(net).rows
    assert weight.condition == pytest.approx(1.0)
    # A gain is a diagonal matrix.
    assert gain.condition == 1.0
    assert (bias.largest, bias.smallest, bias.condition) == (0.0, 0.0, None)
    assert str(mm.conditioning(net)).splitlines()[-1].split()[-4:] == ["0", "0", "-", "0"]
    with torch.no_grad():
        net.get_parameter("1.weight")[0] = 0.25
        net.get_parameter("2.weight").fill_(0.5)
    _, gain, bias = mm.conditioning(net).rows
    assert gain.condition == 4.0
    assert bias.largest == bias.smallest == pytest.approx(math.sqrt(0.75))
    assert bias.condition is None


def test_a_matrix_of_zeros_keeps_its_infinite_condition_number() -> None:
    net = mm.Linear(1, 3, manifold=mm.Euclidean(), norm=mm.Spectral())
    with torch.no_grad():
        net.weight.zero_()
    assert mm.conditioning(net).rows[0].condition == math.inf


def test_a_report_does_not_change_the_network() -> None:
    net = mm.Linear(6, 8) >> mm.ReLU() >> mm.Linear(8, 4)
    before = [p.detach().clone() for p in net.parameters()]
    state = torch.random.get_rng_state()
    net.train()
    mm.lipschitz(net)
    mm.conditioning(net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))

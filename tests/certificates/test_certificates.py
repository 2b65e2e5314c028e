"""Bounds that hold, and measurements that stay below them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.certificates.linear_map import LinearMap
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
@pytest.mark.parametrize("input_norm", NORMS)
@pytest.mark.parametrize("output_norm", NORMS)
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


class Steep(mm.Bond):
    """A slope of 1/0.9 where 1 is declared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() / 0.9


class Square(mm.Bond):
    """`x²/2`: the slope |x| of an entry is at most ‖x‖ in l2, l1 and linf."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        return torch.finfo(dtype).eps * radius**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square() / 2


class Join(mm.Bond):
    """`x + y` of a pair: the norm of a pair is the sum, so the slope is 1."""

    def __init__(self, size: int) -> None:
        space = mm.Space(size)
        super().__init__(source=mm.ProductSpace((space, space)), target=space)

    def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return x[0] + x[1]


class Opaque(mm.Atom):
    """A linear map that says nothing of itself but a declared bound that is infinite."""

    def __init__(self, size: int) -> None:
        super().__init__(
            geometry=mm.Geometry(mm.Euclidean(), mm.Spectral()),
            shape=(size, size),
            source=mm.Space(size),
            target=mm.Space(size),
            sensitivity=1.0,
            lipschitz=math.inf,
        )

    def describe(self) -> str:
        return "Opaque"

    def arguments(self) -> dict[str, object]:
        return {"size": self.weight.shape[0]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


def test_the_search_refutes_a_module_that_declares_too_little() -> None:
    rows = mm.lipschitz(mm.Linear(6, 6) >> Steep()).rows
    assert rows[1].certified == 1
    assert rows[1].empirical == pytest.approx(1 / 0.9)


def test_a_module_is_searched_at_what_arrives_there() -> None:
    """A ReLU whose input is never positive has slope 0, wherever the search goes."""
    free = mm.Linear(2, 2, manifold=mm.Euclidean())
    with torch.no_grad():
        free.weight.copy_(torch.eye(2))
    for sign in (-1.0, 1.0):
        rows = mm.lipschitz(mm.Linear(2, 2) >> mm.Abs() >> sign * free >> mm.ReLU()).rows
        assert rows[-1].label == "ReLU"
        assert rows[-1].empirical == pytest.approx(max(sign, 0))


def norm_of(*matrices: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(torch.linalg.multi_dot(matrices), 2))


def test_linear_maps_are_multiplied_out() -> None:
    torch.manual_seed(0)
    free = {"manifold": mm.Euclidean(), "norm": mm.Spectral()}
    a, b, c = (mm.Linear(*shape, **free) for shape in ((6, 9), (9, 5), (5, 5)))
    with torch.no_grad():
        a.weight.mul_(torch.rand(9, 1))
        b.weight.mul_(torch.rand(9))
    A, B, C = (each.weight.detach().double() for each in (a, b, c))
    eye = torch.eye(5, dtype=torch.float64)
    product = norm_of(B, A)
    rows = mm.lipschitz(a >> b).rows
    assert product < 0.9 * rows[0].certified * rows[1].certified
    cases: list[tuple[mm.Module, float, list[tuple[str, ...]]]] = [
        (a >> b, product, [("0", "1")]),
        (mm.Series(first=a, then=b) >> mm.ReLU(), product, [("first", "then")]),
        (a >> b >> (mm.Identity() + -2.0 * c), norm_of(eye - 2 * C, B, A), []),
        (a >> b >> mm.Residual(c, depth=4), norm_of(0.75 * eye + 0.25 * C, B, A), []),
    ]
    for net, exact, merged in cases:
        report = mm.lipschitz(net)
        assert exact <= report.certified <= exact * (1 + 1e-10)
        if merged:
            assert list(report.merged) == merged
    # In a sum the linear parts are one matrix, the others add: ‖I − Q‖ + 1 for an orthogonal Q.
    q = mm.Linear(5, 5)
    turn = torch.randn(5, 5)
    turn = turn - turn.mT
    with torch.no_grad():
        # By two radians at most, so that ‖I − Q‖ = 2 sin 1 is below the 2 of ‖I‖ + ‖Q‖.
        q.weight.copy_(torch.linalg.matrix_exp(2 * turn / torch.linalg.matrix_norm(turn, 2)))
    net = c >> mm.ReLU() >> mm.Sum(mm.Identity(), mm.Abs(), -1.0 * q)
    exact = float(torch.linalg.matrix_norm(eye - q.weight.detach().double(), 2)) + 1
    scale = mm.lipschitz(c).certified
    assert mm.lipschitz(net).certified == pytest.approx(scale * exact, rel=1e-10)
    assert exact < 1 + 2 * math.sin(1.0) + 1e-5


def exactly(matrix: torch.Tensor) -> list[list[Fraction]]:
    return [[Fraction(entry) for entry in row] for row in matrix.tolist()]


def test_the_error_of_what_was_multiplied_out_is_bounded() -> None:
    """Against exact fractions; (0.1·BA + BA)·A grows the error of each kind of step."""
    torch.manual_seed(0)
    a = torch.randn(12, 12, dtype=torch.float64)
    first = LinearMap(a)
    product = first.then(LinearMap(a.T.contiguous()))
    third = product.scaled(0.1).plus(product).then(first)
    A, B = exactly(a), exactly(a.T)
    BA = [[sum(b * x[j] for b, x in zip(row, A, strict=True)) for j in range(12)] for row in B]
    sums = [[Fraction(0.1) * x + x for x in row] for row in BA]
    last = [[sum(b * x[j] for b, x in zip(row, sums, strict=True)) for j in range(12)] for row in A]
    for found, exact in ((product, BA), (third, last), (product.scaled(0.1), None)):
        if exact is None:
            exact = [[Fraction(0.1) * x for x in row] for row in BA]
        pairs = zip(exactly(found.matrix), exact, strict=True)
        off = sum((x - y) ** 2 for row, other in pairs for x, y in zip(row, other, strict=True))
        assert 0 < off <= Fraction(found.error) ** 2
        assert found.error < 1e-12 * found.size
    off = LinearMap(2 * torch.eye(3, dtype=torch.float64), error=1e-3)
    for both in (
        off.then(LinearMap(torch.eye(3).double())),
        LinearMap(torch.eye(3).double()).then(off),
    ):
        assert both.error >= 1e-3
    assert off.largest_singular_value() >= 2 + 1e-3


def test_nothing_of_what_has_no_bound_is_nothing() -> None:
    net = mm.Linear(4, 4, manifold=mm.Euclidean()) >> Square() >> mm.Linear(4, 4)
    with torch.no_grad():
        net.get_parameter("0.weight").zero_()
    report = mm.lipschitz(net)
    assert (report.declared, report.certified) == (math.inf, 0.0)


def test_the_radius_that_arrives_decides() -> None:
    net = mm.Linear(8, 8, manifold=mm.Stiefel(radius=2.0)) >> Square() >> mm.Linear(8, 4)
    report = mm.lipschitz(net, radius=3.0)
    assert report.declared == pytest.approx(12.0)
    assert report.certified == pytest.approx(12.0, rel=1e-6)
    assert [row.declared for row in report.rows] == pytest.approx([2.0, 6.0, 1.0])
    # In linf the same ball is larger by √8.
    wide = mm.lipschitz(net, input_norm="linf", radius=3.0)
    assert wide.rows[1].declared == pytest.approx(6.0 * math.sqrt(8))
    twice = mm.lipschitz(mm.Linear(8, 8) >> Square() >> Square(), radius=3.0)
    # ‖x‖ ≤ 3, ‖x²/2‖ ≤ 9 by the rule L·r: slopes 3 and 9.
    assert twice.declared == pytest.approx(27.0)


def test_a_module_without_a_finite_bound_is_named_with_what_to_do() -> None:
    net = mm.Linear(8, 8) >> mm.Series(inner=Square()) >> mm.Linear(8, 4)
    report = mm.lipschitz(net)
    assert math.isinf(report.declared)
    assert math.isinf(report.certified)
    assert report.advice() == [
        "no bound holds at inner (Square): its bound depends on the size of its input; "
        "pass radius= (--input-radius on the command line), the largest norm of the inputs"
    ]
    assert report.advice()[0] in str(report)
    free = mm.lipschitz(mm.Linear(8, 8, manifold=mm.Euclidean()) >> Square(), radius=1.0)
    assert math.isinf(free.declared)
    assert math.isfinite(free.certified)
    assert free.advice() == [
        "no bound is declared, because the weights of 0 are on an unbounded manifold; "
        "put them on Stiefel, Sphere or Oblique to get one",
        "no bound is declared at 1 (Square): its bound depends on the size of its input, which a module "
        "in front leaves unbounded",
    ]
    assert mm.lipschitz(Opaque(4) >> mm.ReLU()).advice() == [
        "no bound holds at 0 (Opaque): put its weight on Stiefel, Sphere or Oblique to get one"
    ]


def test_what_is_given_a_tuple_is_bounded_and_not_searched() -> None:
    net = mm.Linear(6, 6) >> (mm.ReLU() | mm.Identity()) >> mm.Abs() >> Join(6) >> mm.Linear(6, 3)
    report = mm.lipschitz(net, radius=1.0)
    assert report.declared == pytest.approx(2.0)
    found = {row.label: row.empirical for row in report.rows}
    assert found["Join"] is None
    assert found["Abs"] == pytest.approx(1.0)
    assert report.rounding == math.inf
    assert "no bound on the rounding holds at 3 (Join)" in str(report)
    assert report.cells()[4][-1] == "-"


def test_points_outside_the_radius_are_refused() -> None:
    with pytest.raises(ArgumentError, match="points must lie within radius=1 in l2, got a point"):
        mm.lipschitz(mm.Linear(3, 3), radius=1.0, points=torch.ones(2, 3))
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="radius must be finite and positive"):
            mm.lipschitz(mm.Linear(3, 3), radius=radius)

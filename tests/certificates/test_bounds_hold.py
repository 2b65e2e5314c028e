"""Adversarial pairs of inputs against the certified bounds of random networks, in float64 and float32."""

from __future__ import annotations

import copy
import math
import random
from typing import get_args

import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.sizes import output_bound, slope
from modular_manifolds.testing import Sample, check_module

NETWORKS, PAIRS = 50, 200
NORMS: tuple[mm.VectorNorm, ...] = get_args(mm.VectorNorm)


def length(x: Tensor, norm: str) -> Tensor:
    if norm == "rms":
        return x.square().mean(dim=-1).sqrt()
    return torch.linalg.vector_norm(x, ord={"l2": 2, "l1": 1, "linf": math.inf}[norm], dim=-1)


class Square(mm.Bond):
    """`x²/2`: the slope |x| of an entry is at most ‖x‖ in l2, l1 and linf, and √d ‖x‖ in rms."""

    def __init__(self, space: mm.Space) -> None:
        super().__init__(source=space, target=space)
        self.per_norm = math.sqrt(space.size) if space.norm == "rms" else 1.0

    def arguments(self) -> dict[str, object]:
        return {"space": self.source}

    def lipschitz_within(self, radius: float) -> float:
        return self.per_norm * radius

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # Two roundings of an entry of at most |x| ‖x‖/2.
        return torch.finfo(dtype).eps * self.lipschitz_within(radius) * radius

    def forward(self, x: Tensor) -> Tensor:
        return x.square() / 2


def linear(draw: random.Random, into: int, out: int, norm: mm.VectorNorm) -> mm.Module:
    """A linear map of any kind, as it is drawn or off its manifold."""
    manifold, measure = draw.choice(
        [
            (mm.Stiefel(radius=draw.choice([1.0, 1.5])), mm.Spectral()),
            (mm.Euclidean(), mm.Spectral()),
            (mm.Sphere(radius=2.0), mm.Frobenius()),
            (mm.Oblique(), mm.RowRMS()),
        ]
    )
    found = mm.Linear(
        into, out, manifold=manifold, norm=measure, source_norm=norm, target_norm=norm
    )
    if draw.random() < 0.3:
        with torch.no_grad():
            found.weight.mul_(draw.uniform(0.2, 2.0))
    return found


def part(draw: random.Random, size: int, norm: mm.VectorNorm, depth: int) -> mm.Module:
    """A module from a space to itself."""
    if depth == 0:
        bonds = [mm.ReLU, mm.Abs, mm.MaxMin, mm.GELU, mm.Identity]
        kind = draw.randrange(4)
        if kind < 2:
            return linear(draw, size, size, norm)
        if kind == 2:
            return draw.choice(bonds)()
        return 0.3 * Square(mm.Space(size, norm))
    inside = [part(draw, size, norm, depth - 1) for _ in range(draw.choice([2, 2, 3]))]
    match draw.randrange(5):
        case 0:
            return mm.Residual(mm.Series(*inside), depth=draw.choice([1, 2, 3]))
        case 1:
            return inside[0] + draw.choice([-1.0, 0.5]) * inside[1]
        case 2:
            return draw.choice([-0.7, 1.3]) * mm.Series(*inside)
        case _:
            return mm.Series(*inside)


def network(draw: random.Random, norm: mm.VectorNorm) -> mm.Module:
    sizes = [draw.choice([1, 2, 3, 5, 8, 13]) for _ in range(3)]
    return (
        linear(draw, sizes[0], sizes[1], norm)
        >> part(draw, sizes[1], norm, draw.choice([1, 2]))
        >> linear(draw, sizes[1], sizes[2], norm)
    )


def top_direction(net: mm.Module, x: Tensor) -> Tensor:
    """The steepest direction at each x in l2, by power iteration on the Jacobian."""
    v = torch.randn_like(x)
    for _ in range(8):
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(1e-30)
        outward = torch.func.jvp(net, (x,), (v,))[1]
        v = torch.func.vjp(net, x)[1](outward)[0]
    size = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return torch.where(size > 1e-30, v / size.clamp_min(1e-30), torch.ones_like(v))


def pairs(net: mm.Module) -> tuple[Tensor, Tensor]:
    """Near and far pairs in float32: along steepest, random and coordinate directions."""
    size = net.tree().signature.source
    assert isinstance(size, mm.Space)
    count = PAIRS // 8
    x = torch.randn(count, size.size, dtype=torch.float64)
    x = x * torch.logspace(-1, 1, count, dtype=torch.float64).unsqueeze(-1)
    steepest = top_direction(net, x)
    coordinate = torch.eye(size.size, dtype=torch.float64)[torch.randint(size.size, (count,))]
    noise = torch.randn_like(x)
    steps = [
        *(scale * steepest for scale in (1e-3, 0.1, -1.0, 10.0)),
        noise,
        noise.sign(),
        3.0 * coordinate,
        -2.0 * x,
    ]
    x32 = torch.cat([x] * len(steps)).float()
    return x32, x32 + torch.cat(steps).float()


@pytest.mark.parametrize("seed", mostly_long(range(NETWORKS), usual=5))
def test_no_pair_beats_the_certified_bound(seed: int) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    norm = NORMS[seed % len(NORMS)]
    net = network(draw, norm).requires_grad_(False)
    exact = copy.deepcopy(net).double()
    x, y = pairs(exact)
    radius = float(torch.maximum(length(x.double(), norm), length(y.double(), norm)).amax())
    apart = length(x.double() - y.double(), norm)
    for each in (exact, net):
        dtype = next(each.parameters()).dtype
        report = mm.lipschitz(each, radius=radius * (1 + 1e-9), starts=2, iterations=2)
        assert report.rounding is not None
        assert report.empirical <= report.certified
        for row in report.rows:
            assert row.empirical is not None
            assert row.empirical <= row.certified, row
        moved = length(each(y.to(dtype)).double() - each(x.to(dtype)).double(), norm)
        worst = float((moved - report.certified * apart).amax())
        assert worst <= report.rounding, f"{dtype}\n{report}"
        # The slack may not hide a bound that is too small: in float64 it is not needed.
        if dtype == torch.float64:
            assert bool((moved <= report.certified * apart * (1 + 1e-9)).all())
    off = length(net(x).double() - exact(x.double()), norm)
    assert 2 * float(off.amax()) <= report.rounding


@pytest.mark.long
def test_every_kind_of_module_is_among_the_networks() -> None:
    labels: set[str] = set()
    merged = 0
    for seed in range(NETWORKS):
        net = network(random.Random(seed), NORMS[seed % len(NORMS)])
        report = mm.lipschitz(net, radius=1.0, starts=1, iterations=1)
        labels |= {row.label.split("(")[0] for row in report.rows}
        merged += len(report.merged)
    assert labels == {"Linear", "ReLU", "Abs", "MaxMin", "GELU", "Identity", "Square"}
    assert merged > 10


@pytest.mark.parametrize("norm", mostly_long(["rms", "l2"], usual=2))
def test_a_single_atom_is_tight(norm: mm.VectorNorm) -> None:
    for into, out in ((20, 30), (30, 20), (64, 64)):
        for manifold in (mm.Euclidean(), mm.Stiefel(radius=3.0)):
            net = mm.Linear(
                into,
                out,
                manifold=manifold,
                norm=mm.Spectral(),
                source_norm=norm,
                target_norm=norm,
            )
            report = mm.lipschitz(net)
            assert 1 <= report.tightness <= 1.05
            assert report.rows[0].empirical == pytest.approx(report.empirical, rel=1e-2)


@pytest.mark.parametrize(
    "dtype", mostly_long([torch.float32, torch.float64, torch.bfloat16], usual=2)
)
def test_the_rounding_of_one_module_stays_within_its_bound(dtype: torch.dtype) -> None:
    shapes: list[tuple[int, mm.VectorNorm]] = [(1, "l2"), (4, "linf"), (64, "l1")]
    for size, norm in shapes:
        space = mm.Space(size, norm)
        modules = [
            mm.Linear(size, size, source_norm=norm, target_norm=norm),
            mm.GELU(),
            mm.ReLU(),
            mm.Abs(),
            mm.MaxMin(),
            mm.Identity(),
            mm.Flatten(),
        ]
        with torch.no_grad():
            modules[0].get_parameter("weight").mul_(0.7)
        for module in modules:
            module = module.requires_grad_(False).to(dtype)
            exact = copy.deepcopy(module).double()
            if isinstance(exact, mm.Linear):
                assert torch.equal(exact.weight, module.weight.double())
            for scale in (1e-3, 1.0, 5.0, 1e3):
                x = (scale * torch.randn(500, size, dtype=torch.float64)).to(dtype)
                off = length(module(x).double() - exact(x.double()), space.norm)
                allowed = [
                    module.rounding_within(float(each), dtype)
                    for each in length(x.double(), space.norm)
                ]
                assert bool((off <= torch.tensor(allowed, dtype=torch.float64)).all()), module


def test_a_type_too_coarse_for_the_sum_has_no_bound_on_its_rounding_and_is_named() -> None:
    net = (mm.Linear(128, 8) >> mm.ReLU() >> mm.Linear(8, 4)).to(torch.bfloat16)
    report = mm.lipschitz(net, radius=1.0)
    assert report.rounding == math.inf
    assert math.isfinite(report.certified)
    assert report.advice() == [
        "no bound on the rounding holds at 0 (Linear(128, 8)): write its rounding_within, or compute in "
        "a finer dtype"
    ]
    assert (mm.lipschitz(net).radius, mm.lipschitz(net).rounding) == (None, None)


@pytest.mark.parametrize(
    "net",
    mostly_long(
        [
            0.1 * mm.Identity(),
            mm.Sum(mm.Identity(), mm.Abs(), mm.Identity()),
            mm.Sum(mm.GELU(), mm.ReLU(), mm.Identity()),
            (mm.Identity() | 0.3 * mm.Abs()) >> 3.3 * mm.Identity(),
            mm.GELU() >> mm.Sum(*[mm.Identity() for _ in range(40)]),
        ],
        usual=3,
    ),
)
def test_the_rounding_of_scales_and_sums_is_bounded(net: mm.Module) -> None:
    """Alone and of tiny entries: no linear map beside them whose slack would hide theirs."""
    exact = copy.deepcopy(net).double()
    for scale in (1e-43, 1e-38, 1.0, 1e5):
        for x in (scale * torch.randn(100, 1)).split(1):
            space = mm.Space(1, "l2")
            largest = float(x.abs().amax())
            bound = forward_error(net.tree(), space, largest, Leaf.lipschitz_within, torch.float32)
            one, other = net(x), exact(x.double())
            if not isinstance(one, tuple):
                one, other = (one,), (other,)
            off = sum(float((a.double() - b).abs()) for a, b in zip(one, other, strict=True))
            assert off <= bound
            assert bound <= 1e-3 * scale or scale < 1e-30


def test_an_error_grows_by_the_slope_of_what_follows() -> None:
    """A GELU, then a map that multiplies by 100: the bound is a hundred times the GELU's and its own."""
    big = mm.Linear(1, 1, manifold=mm.Euclidean())
    with torch.no_grad():
        big.weight.fill_(100.0)
    alone = big.rounding_within(1.0, torch.float32)
    gelu = mm.GELU().rounding_within(1.0, torch.float32)
    start = mm.Linear(1, 1)
    first = start.rounding_within(1.0, torch.float32)
    report = mm.lipschitz(start >> mm.GELU() >> big, radius=1.0)
    assert report.rounding == pytest.approx(2 * (100 * (first + gelu) + alone), rel=1e-4)


def test_the_rounding_is_converted_at_the_ends() -> None:
    net = mm.Linear(4, 9)
    own, wide = mm.lipschitz(net, radius=1.0), mm.lipschitz(net, output_norm="l1", radius=1.0)
    assert own.rounding is not None
    assert wide.rounding == pytest.approx(3 * own.rounding)
    box = mm.lipschitz(net, input_norm="linf", radius=1.0)
    assert box.rounding == pytest.approx(2 * own.rounding)


def test_a_bound_that_depends_on_the_radius_is_tried_at_the_radius() -> None:
    space = mm.Space(5)
    check_module(Square(space), Sample((5,), dtype=torch.float64))
    wrong = Square(space)
    wrong.per_norm = 0.9
    with pytest.raises(AssertionError, match="sensitivity bounds the slope"):
        check_module(wrong, Sample((5,), dtype=torch.float64))
    tree = (2.0 * Square(space) >> Square(space)).tree()
    # 3 arrives, 2·3·3 = 18 goes on: slopes 2·3 and 18.
    assert (slope(tree, 3.0), output_bound(tree, 3.0)) == (108.0, 324.0)
    assert (slope(tree, 0.0), output_bound(tree, 0.0)) == (0.0, 0.0)

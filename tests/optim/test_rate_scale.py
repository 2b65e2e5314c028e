"""The slope that a budget divides by, the bound that holds, and which of the two a learning rate is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, jvp

import modular_manifolds as mm
from modular_manifolds.composition import Signature, Space, Tree, allocate
from modular_manifolds.composition.sizes import slope
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum

MODELS: dict[str, tuple[Callable[[], mm.Module], list[float]]] = {
    "GPT": (
        lambda: mm.models.GPT(11, width=16, depth=2, heads=2),
        [1 / 40, *[9 / 200] * 12, 1 / 40],
    ),
    "GPT with other scales": (
        lambda: mm.models.GPT(
            11,
            width=16,
            depth=1,
            heads=2,
            attention_scale=30.0,
            logit_scale=3.0,
            branch_scale=7.0,
            masses=(1.0, 4.0, 2.0),
        ),
        [1 / 21, *[4 / 35] * 6, 2 / 21],
    ),
    "MLP": (lambda: mm.models.MLP(12, 3, hidden=(8, 6)), [1 / 3] * 3),
    "ConvNet": (
        lambda: mm.models.ConvNet(2, 3, size=(8, 8), width=4),
        [1 / 24, 1 / 48, 1 / 48, 1 / 24],
    ),
    "ResidualMLP": (lambda: mm.models.ResidualMLP(12, 3, width=8, depth=2), [1 / 24] * 4),
    "a typical slope and a dropout": (
        lambda: (
            mm.Linear(4, 4)
            >> mm.Amplify(-3.0, typical=0.5)
            >> mm.Dropout(0.5)
            >> mm.Linear(4, 2, mass=2.0)
        ),
        [1 / 3, 2 / 3],
    ),
    # Attention divides by max(1, 3 · 2²) = 12; MergeHeads by 1, Linear(8, 3) by √(8/3), κ likewise.
    "attention of a typical size above 1": (
        lambda: (
            mm.Parallel(mm.Heads(8, 2, 4), mm.Heads(8, 2, 4), mm.Heads(8, 2, 4, mass=2.0))
            >> mm.CausalAttention(4, scale=3.0, typical=2.0)
            >> mm.MergeHeads(2, 4)
            >> mm.Linear(8, 3, norm=mm.RMSOperator())
        ),
        [math.sqrt(3 / 8) / 60, math.sqrt(3 / 8) / 60, math.sqrt(3 / 8) / 30, 1 / 5],
    ),
}
"""Networks and the shares that they had when one number was both bound and rate scale."""


@pytest.mark.parametrize("name", MODELS)
def test_shares_are_those_of_one_number_for_both(name: str) -> None:
    build, shares = MODELS[name]
    assert [row.share for row in mm.budget(build()).rows] == pytest.approx(shares, rel=1e-12)


# Rate scales follow the rules of sensitivities, and nothing else depends on them.


def leaf(sensitivity: float, rate_scale: float, mass: float | None = None) -> Leaf:
    return Leaf(
        "",
        "Leaf",
        Signature(mass or 0.0, sensitivity, Space(1), Space(1), rate_scale=rate_scale),
        lipschitz=sensitivity,
        weight=None if mass is None else "w",
    )


numbers = st.floats(0.1, 3)
leaves = st.builds(leaf, numbers, numbers, st.none() | st.floats(0.1, 2))
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Scale, st.just(""), numbers, inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: Series("", tuple(parts)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: Sum("", tuple(parts)))
    ),
    max_leaves=8,
)


def with_rate_scales_as_bounds(tree: Tree) -> Tree:
    match tree:
        case Leaf():
            own = tree.signature
            bounds = replace(own, sensitivity=own.rate_scale)
            return replace(tree, signature=bounds, lipschitz=own.rate_scale)
        case Scale():
            return Scale("", tree.factor, with_rate_scales_as_bounds(tree.part))
        case _:
            return type(tree)("", tuple(with_rate_scales_as_bounds(part) for part in tree.parts))


@given(tree=trees)
def test_rate_scales_split_the_learning_rate_as_sensitivities_do(tree: Tree) -> None:
    twin = with_rate_scales_as_bounds(tree)
    assert twin.signature.sensitivity == tree.signature.rate_scale
    ours, theirs = allocate(tree, 1.0), allocate(twin, 1.0)
    assert [row.share for row in ours.rows] == [row.share for row in theirs.rows]
    assert slope(tree, 1.0) == pytest.approx(tree.signature.sensitivity, rel=1e-12)


@given(tree=trees)
def test_a_budget_says_whether_its_learning_rate_is_a_bound(tree: Tree) -> None:
    budget = allocate(tree, 0.5)
    assert budget.is_bound == (budget.first_order <= 1 + 1e-9)
    if not budget.rows:
        return
    if budget.is_bound:
        assert budget.verdict.endswith("; the learning rate is a bound on this change")
        return
    assert "; the learning rate is an expectation, not a bound; " in budget.verdict
    # Something is named as the reason: a typical slope, or an input that may leave the unit ball.
    assert ("typical slopes at" in budget.verdict) == bool(budget.typical)
    assert budget.typical or "inputs may be larger than 1 at w (" in budget.verdict
    for each in budget.typical:
        assert each.slope > each.rate_scale


@given(tree=trees)
def test_bounds_all_the_way_and_inputs_in_their_unit_balls_make_a_bound(tree: Tree) -> None:
    budget = allocate(tree, 1.0)
    if not budget.typical and all(row.radius <= 1 for row in budget.rows):
        assert budget.is_bound
    assert allocate(contracted(with_rate_scales_as_bounds(tree)), 1.0).is_bound


def contracted(tree: Tree) -> Tree:
    """Every part scaled down to a sensitivity of at most 1."""
    match tree:
        case Leaf():
            inside: Tree = tree
        case Scale():
            inside = Scale("", tree.factor, contracted(tree.part))
        case _:
            inside = type(tree)("", tuple(contracted(part) for part in tree.parts))
    return Scale("", 1 / max(1.0, inside.signature.sensitivity), inside)


def test_only_a_typical_slope_behind_a_weight_is_a_reason() -> None:
    typical = leaf(2.0, 1.0)
    behind = allocate(Series("", (leaf(1.0, 1.0, mass=1.0), typical)), 1.0)
    assert [(each.rate_scale, each.slope) for each in behind.typical] == [(1.0, 2.0)]
    before = allocate(Series("", (typical, leaf(1.0, 1.0, mass=1.0))), 1.0)
    assert not before.typical
    assert "inputs may be larger than 1 at w (2)" in before.verdict


def test_a_verdict_names_three_modules_and_counts_the_others() -> None:
    verdict = mm.budget(mm.models.GPT(11, width=8, depth=2, heads=2)).verdict
    assert "divides by typical slopes at blocks.2.block.attention (1 of at most " in verdict
    # Four amplifiers and two attentions; every weight but the embedding's and the first block's three.
    assert " and 3 more; inputs may be larger than 1 at head.module.weight (" in verdict
    assert verdict.endswith(" and 6 more")


# Euclidean weights may leave the unit ball that sensitivities are meant for.


def free(mass: float = 1.0) -> mm.Linear:
    return mm.Linear(4, 4, manifold=mm.Euclidean(), norm=mm.Spectral(), mass=mass)


def test_a_euclidean_weight_bounds_its_own_step_and_no_other() -> None:
    assert mm.budget(free()).is_bound
    assert mm.budget(mm.ReLU() >> free() >> mm.Abs()).is_bound
    for net in (free() >> mm.Linear(4, 4), mm.Linear(4, 4) >> free(), free() + free() >> free()):
        budget = mm.budget(net)
        assert not budget.is_bound
        assert "for inputs in the unit ball and weights of at most unit norm" in budget.verdict
        assert budget.unbounded
    # What cannot be moved any more needs no bound; a weight that is frozen is still of some size.
    assert mm.budget(free() >> mm.Linear(4, 4, mass=0.0)).is_bound
    assert not mm.budget(mm.Linear(4, 4) >> free(mass=0.0)).is_bound
    assert not mm.budget(mm.Bias(4) >> free(mass=0.0)).is_bound


def change(net: mm.Module, x: Tensor) -> float:
    """The output's first-order change, in a step of steepest descent of learning rate 1."""
    gradient = torch.randn(net(x).shape, dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    grads = torch.autograd.grad((net(x) * gradient).sum(), list(net.parameters()))
    step = {
        path: mm.budget(net).shares[path]
        * mm.steepest(geometry.manifold, geometry.norm, before[path], grad).direction
        for (path, geometry), grad in zip(net.geometries(), grads, strict=True)
    }
    moved = jvp(lambda w: functional_call(net, w, (x,)), (before,), (step,))[1]
    return float(torch.linalg.vector_norm(moved, dim=-1).max())


@pytest.mark.parametrize("seed", range(3))
def test_without_its_bound_a_step_may_exceed_the_learning_rate(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(8, 4, dtype=torch.float64), dim=-1)
    held = cases.in_double(mm.Linear(4, 4) >> mm.Linear(4, 4))
    assert mm.budget(held).is_bound
    assert change(held, x) <= 1 + 1e-6
    loose = (free() >> free()).double()
    with torch.no_grad():
        for weight in loose.parameters():
            weight.mul_(30.0)
    assert change(loose, x) > 1
    amplified = cases.in_double(mm.Linear(4, 4) >> mm.Amplify(9.0, typical=1.0))
    assert not mm.budget(amplified).is_bound
    assert 1 < change(amplified, x) <= mm.budget(amplified).first_order * (1 + 1e-6)


def test_side_by_side_rate_scales_add() -> None:
    net = mm.Parallel(mm.Amplify(3.0, typical=0.5), 2.0 * mm.Amplify(4.0, typical=0.25))
    assert (net.sensitivity, net.rate_scale) == (11.0, 1.0)
    parts = Parallel("", (leaf(2.0, 0.5), leaf(3.0, 0.25)))
    assert (parts.signature.sensitivity, parts.signature.rate_scale) == (5.0, 0.75)

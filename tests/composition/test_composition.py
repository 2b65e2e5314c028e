"""Masses, sensitivities and shares follow the composition rules on any tree: arithmetic, without a tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modular_manifolds.composition import (
    SAME,
    Budget,
    ProductSpace,
    Signature,
    Space,
    Tree,
    allocate,
    leaves,
)
from modular_manifolds.composition.radius import Radius, added, each_of, scaled, total
from modular_manifolds.composition.sizes import output_bound, slope
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum
from modular_manifolds.errors import ArgumentError, SpaceError

EXACT = 1e-12
"""Relative rounding of a few dozen multiplications."""


def atom(
    into: int = 1,
    out: int = 1,
    *,
    mass: float = 1.0,
    sensitivity: float = 1.0,
    norm_constant: float = 1.0,
    offset: float = 0.0,
) -> Leaf:
    return Leaf(
        path="",
        label=f"Atom({into}, {out})",
        signature=Signature(mass, sensitivity, Space(into), Space(out)),
        lipschitz=sensitivity,
        offset=offset,
        weight="unnamed",
        manifold="Stiefel",
        norm="Spectral",
        norm_constant=norm_constant,
    )


def bond(sensitivity: float = 1.0) -> Leaf:
    return Leaf("", "Bond", Signature(0.0, sensitivity, None, SAME), lipschitz=sensitivity)


def named(tree: Tree) -> Tree:
    """The tree with every weight named by its place in the order in which data meets the weights."""
    count = iter(range(10_000))

    def name(node: Tree) -> Tree:
        match node:
            case Leaf():
                return dataclasses.replace(node, weight=f"w{next(count)}" if node.weight else None)
            case Scale():
                return Scale("", node.factor, name(node.part))
            case _:
                return type(node)("", tuple(name(part) for part in node.parts))

    return name(tree)


sizes = st.integers(1, 3)
factors = st.floats(0.1, 4).flatmap(lambda c: st.sampled_from([c, -c]))
sensitivities = st.floats(0.1, 3)
masses = st.floats(0.05, 5) | st.just(0.0)


@st.composite
def atoms(draw: st.DrawFn, into: int, out: int, *, positive: bool, offsets: bool) -> Leaf:
    return atom(
        into,
        out,
        mass=draw(st.floats(0.05, 5) if positive else masses),
        sensitivity=draw(sensitivities),
        norm_constant=draw(st.floats(0.5, 2)),
        offset=draw(st.floats(0, 1)) if offsets else 0.0,
    )


@st.composite
def trees(
    draw: st.DrawFn,
    into: int | None = None,
    out: int | None = None,
    depth: int = 3,
    *,
    positive: bool = False,
    offsets: bool = False,
    contracting: bool = False,
) -> Tree:
    """A random tree from `into` to `out` features.

    Args:
        depth: at most so many compositions deep.
        positive: no mass is zero.
        offsets: modules may map zero elsewhere.
        contracting: every subtree has a sensitivity of at most one.
    """
    a = draw(sizes) if into is None else into
    b = draw(sizes) if out is None else out

    def part(start: int, end: int) -> Tree:
        rest = {"positive": positive, "offsets": offsets, "contracting": contracting}
        return draw(trees(start, end, depth - 1, **rest))

    def parts(start: int, end: int) -> tuple[Tree, ...]:
        return tuple(part(start, end) for _ in range(draw(st.integers(1, 3))))

    match draw(
        st.sampled_from(["leaf", "series", "sum", "scale", "parallel"] if depth else ["leaf"])
    ):
        case "series":
            stops = [a, *draw(st.lists(sizes, max_size=2)), b]
            tree: Tree = Series("", tuple(part(start, end) for start, end in pairwise(stops)))
        case "sum":
            tree = Sum("", parts(a, b))
        case "scale":
            tree = Scale("", draw(factors), part(a, b))
        case "parallel":
            # A tuple, and an atom that takes it: what attention is made of.
            fan = tamed(Parallel("", parts(a, draw(sizes))), contracting)
            join = draw(atoms(1, b, positive=positive, offsets=offsets))
            signature = dataclasses.replace(join.signature, source=fan.signature.target)
            tree = Series("", (fan, dataclasses.replace(join, signature=signature)))
        case _:
            leaf = atoms(a, b, positive=positive, offsets=offsets)
            tree = draw(leaf | st.builds(bond, sensitivities) if a == b else leaf)
    return named(tamed(tree, contracting))


def tamed(tree: Tree, contracting: bool) -> Tree:
    """The tree scaled down to a sensitivity of at most one, if it shall be contracting."""
    slope = tree.signature.sensitivity
    return Scale("", 1 / slope, tree) if contracting and slope > 1 else tree


def shares(tree: Tree) -> list[float]:
    return [row.share for row in allocate(tree, lr=1.0).rows]


def same_numbers(one: Tree, other: Tree) -> None:
    one, other = named(one), named(other)
    assert one.signature.mass == pytest.approx(other.signature.mass, rel=EXACT)
    assert one.signature.sensitivity == pytest.approx(other.signature.sensitivity, rel=EXACT)
    assert one.signature.rate_scale == pytest.approx(other.signature.rate_scale, rel=EXACT)
    a, b = allocate(one, lr=1.0), allocate(other, lr=1.0)
    assert [row.share for row in a.rows] == pytest.approx([row.share for row in b.rows], rel=EXACT)
    assert [row.radius for row in a.rows] == pytest.approx(
        [row.radius for row in b.rows], rel=EXACT
    )
    assert a.first_order == pytest.approx(b.first_order, rel=EXACT)


# Associativity, scale, and what shares add up to.


@given(
    a=trees(1, 2, 2, offsets=True), b=trees(2, 3, 2, offsets=True), c=trees(3, 1, 2, offsets=True)
)
def test_series_is_associative(a: Tree, b: Tree, c: Tree) -> None:
    flat = Series("", (a, b, c))
    left = Series("", (Series("", (a, b)), c))
    right = Series("", (a, Series("", (b, c))))
    same_numbers(left, right)
    same_numbers(left, flat)
    assert flat.signature == dataclasses.replace(
        left.signature,
        mass=flat.signature.mass,
        sensitivity=flat.signature.sensitivity,
        rate_scale=flat.signature.rate_scale,
    )


@given(
    a=trees(2, 1, 2, offsets=True), b=trees(2, 3, 2, offsets=True), c=trees(2, 2, 2, offsets=True)
)
def test_parallel_is_associative(a: Tree, b: Tree, c: Tree) -> None:
    flat = Parallel("", (a, b, c))
    left = Parallel("", (Parallel("", (a, b)), c))
    right = Parallel("", (a, Parallel("", (b, c))))
    same_numbers(left, right)
    same_numbers(left, flat)


@given(
    a=trees(2, 1, 2, offsets=True), b=trees(2, 1, 2, offsets=True), c=trees(2, 1, 2, offsets=True)
)
def test_sum_is_associative_and_has_the_numbers_of_parallel(a: Tree, b: Tree, c: Tree) -> None:
    flat = Sum("", (a, b, c))
    same_numbers(Sum("", (Sum("", (a, b)), c)), Sum("", (a, Sum("", (b, c)))))
    same_numbers(Sum("", (Sum("", (a, b)), c)), flat)
    same_numbers(flat, Parallel("", (a, b, c)))


@given(tree=trees(), factor=factors)
def test_scaling_up_scales_shares_down(tree: Tree, factor: float) -> None:
    scaled = Scale("", factor, tree)
    assert scaled.signature.mass == tree.signature.mass
    assert scaled.signature.sensitivity == pytest.approx(abs(factor) * tree.signature.sensitivity)
    assert scaled.signature.rate_scale == pytest.approx(abs(factor) * tree.signature.rate_scale)
    expected = [share / abs(factor) for share in shares(tree)]
    assert shares(scaled) == pytest.approx(expected, rel=EXACT)
    same_numbers(Scale("", -factor, tree), scaled)


@given(before=trees(1, 2, 1), after=trees(2, 1, 1), factor=factors)
def test_scaling_a_part_scales_its_own_shares_and_those_before_it(
    before: Tree, after: Tree, factor: float
) -> None:
    """In `before >> c·middle >> after`, what comes after c does not know of it."""
    middle = atom(2, 2)
    plain = shares(Series("", (before, middle, after)))
    scaled = shares(Series("", (before, Scale("", factor, middle), after)))
    touched = len(shares(before)) + 1
    expected = [s / abs(factor) if i < touched else s for i, s in enumerate(plain)]
    assert scaled == pytest.approx(expected, rel=EXACT)


@given(tree=trees(offsets=True))
def test_shares_times_what_is_downstream_sum_to_one(tree: Tree) -> None:
    rows = allocate(tree, lr=0.3).rows
    total = math.fsum(row.share * row.downstream * row.norm_constant for row in rows)
    assert total == pytest.approx(1.0 if tree.signature.mass > 0 else 0.0, rel=EXACT)
    for row in rows:
        part = row.mass / tree.signature.mass if tree.signature.mass > 0 else 0.0
        assert row.share * row.downstream * row.norm_constant == pytest.approx(part, rel=EXACT)
        assert row.step == 0.3 * row.share


@given(tree=trees(positive=True), data=st.data())
def test_a_mass_of_zero_freezes_and_leaves_the_ratios_of_the_others(
    tree: Tree, data: st.DataObject
) -> None:
    weights = [leaf.weight for leaf in leaves(tree) if leaf.weight is not None]
    assume(len(weights) >= 2)
    frozen = data.draw(st.sampled_from(weights))
    before, after = allocate(tree, lr=1.0), allocate(without_mass(tree, frozen), lr=1.0)
    row = next(row for row in before.rows if row.path == frozen)
    rest = 1 - row.mass / tree.signature.mass
    for path, share in after.shares.items():
        expected = 0.0 if path == frozen else before.shares[path] / rest
        assert share == pytest.approx(expected, rel=1e-9)


def without_mass(tree: Tree, weight: str) -> Tree:
    match tree:
        case Leaf():
            if tree.weight != weight:
                return tree
            return dataclasses.replace(
                tree, signature=dataclasses.replace(tree.signature, mass=0.0)
            )
        case Scale():
            return Scale(tree.path, tree.factor, without_mass(tree.part, weight))
        case _:
            return type(tree)(tree.path, tuple(without_mass(part, weight) for part in tree.parts))


@given(tree=trees(), times=st.floats(0.1, 10))
def test_only_the_ratios_of_masses_count(tree: Tree, times: float) -> None:
    def heavier(node: Tree) -> Tree:
        match node:
            case Leaf():
                signature = dataclasses.replace(node.signature, mass=times * node.signature.mass)
                return dataclasses.replace(node, signature=signature)
            case Scale():
                return Scale(node.path, node.factor, heavier(node.part))
            case _:
                return type(node)(node.path, tuple(heavier(part) for part in node.parts))

    assert shares(heavier(tree)) == pytest.approx(shares(tree), rel=EXACT)


def test_all_frozen_is_allowed() -> None:
    budget = allocate(Series("", (atom(mass=0.0), atom(mass=0.0))), lr=1.0)
    assert [row.share for row in budget.rows] == [0.0, 0.0]
    assert budget.first_order == 0.0


# The modular norm, as the table of MATH section 3 defines it, from the parts up.


def recursive_norm(tree: Tree, lengths: dict[str, float]) -> float:
    """The norm of a composition from the norms of its parts; a part without weights adds nothing."""
    match tree:
        case Leaf():
            return 0.0 if tree.weight is None else tree.norm_constant * lengths[tree.weight]
        case Scale():
            return abs(tree.factor) * recursive_norm(tree.part, lengths)
        case Series():
            return pairwise_norm(tree.parts, lengths, in_series=True)
        case Parallel() | Sum():
            return pairwise_norm(tree.parts, lengths, in_series=False)


def pairwise_norm(parts: Sequence[Tree], lengths: dict[str, float], *, in_series: bool) -> float:
    """`max(s_g · (m/m_f) ‖w_f‖, (m/m_g) ‖w_g‖)`, without s_g in parallel, two at a time from the left."""
    norm, mass = recursive_norm(parts[0], lengths), parts[0].signature.mass
    for part in parts[1:]:
        other, own = recursive_norm(part, lengths), part.signature.mass
        total = mass + own
        downstream = part.signature.rate_scale if in_series else 1.0
        norm = max(downstream * over(total * norm, mass), over(total * other, own))
        mass = total
    return norm


def over(value: float, mass: float) -> float:
    if value == 0.0:
        return 0.0
    return value / mass if mass > 0 else math.inf


@given(tree=trees(depth=4), data=st.data())
def test_the_budget_unrolls_the_recursive_norm(tree: Tree, data: st.DataObject) -> None:
    """`max_i ‖w_i‖/share_i` is the recursive norm of the whole, whatever the tree."""
    split = allocate(tree, lr=1.0).shares
    # A frozen weight that moves is infinitely long on both sides, which compares nothing.
    lengths = {
        path: data.draw(st.floats(0.01, 10)) if share > 0 else 0.0 for path, share in split.items()
    }
    unrolled = max((over(lengths[path], share) for path, share in split.items()), default=0.0)
    assert recursive_norm(tree, lengths) == pytest.approx(unrolled, rel=EXACT)


def test_moving_a_frozen_weight_is_infinitely_long_both_ways() -> None:
    tree = named(Series("", (atom(mass=0.0), atom())))
    lengths = {"w0": 1.0, "w1": 1.0}
    assert recursive_norm(tree, lengths) == math.inf
    assert max(over(lengths[k], s) for k, s in allocate(tree, lr=1.0).shares.items()) == math.inf


# What downstream and radius mean, tried on the function itself: every module the map x to s·x + offset.


def signals(
    tree: Tree, x: float, moves: dict[str, float], arriving: dict[str, float] | None = None
) -> list[float]:
    """The outputs of the scalar network; `moves` is added to the output of an atom.

    Factors count by their size, so that branches add up as in the worst case.
    """
    match tree:
        case Leaf():
            if tree.weight is None:
                return [tree.signature.sensitivity * x]
            if arriving is not None:
                arriving[tree.weight] = abs(x)
            return [tree.signature.sensitivity * x + tree.offset + moves.get(tree.weight, 0.0)]
        case Scale():
            return [abs(tree.factor) * y for y in signals(tree.part, x, moves, arriving)]
        case Series():
            outputs = [x]
            for part in tree.parts:
                # The norm of a tuple is the sum over its parts.
                outputs = signals(part, math.fsum(outputs), moves, arriving)
            return outputs
        case Sum():
            return [math.fsum(y for part in tree.parts for y in signals(part, x, moves, arriving))]
        case Parallel():
            return [y for part in tree.parts for y in signals(part, x, moves, arriving)]


@given(tree=trees(depth=4, offsets=True))
def test_downstream_is_how_far_an_output_is_moved(tree: Tree) -> None:
    still = math.fsum(signals(tree, 1.0, {}))
    for row in allocate(tree, lr=1.0).rows:
        moved = math.fsum(signals(tree, 1.0, {row.path: 1.0}))
        assert moved - still == pytest.approx(row.downstream, rel=1e-6, abs=1e-9 * still)


@given(tree=trees(depth=4, offsets=True))
def test_radius_is_what_arrives(tree: Tree) -> None:
    arriving: dict[str, float] = {}
    out = signals(tree, 1.0, {}, arriving)
    assert math.fsum(out) == pytest.approx(output_bound(tree, 1.0), rel=1e-9)
    for row in allocate(tree, lr=1.0).rows:
        assert row.radius == pytest.approx(arriving[row.path], rel=1e-9)


@given(tree=trees(depth=4, contracting=True))
def test_one_step_moves_the_output_by_at_most_the_learning_rate(tree: Tree) -> None:
    """With all sensitivities at most one and no offsets, inputs stay in their unit balls."""
    budget = allocate(tree, lr=1.0)
    assert budget.first_order <= 1 + EXACT
    assert all(row.radius <= 1 + EXACT for row in budget.rows)
    assert total(output_bound(tree, 1.0)) <= 1 + EXACT


def test_a_radius_above_one_is_reported() -> None:
    """A module that doubles its input makes what comes after it move twice as far."""
    budget = allocate(named(Series("", (atom(sensitivity=2.0), atom()))), lr=1.0)
    assert [row.radius for row in budget.rows] == [1.0, 2.0]
    assert budget.first_order == pytest.approx(1.5)
    shifted = allocate(named(Series("", (atom(offset=0.5), atom()))), lr=1.0)
    assert [row.radius for row in shifted.rows] == [1.0, 1.5]


# Trees are values, leaves come in the order of data, and a budget can be read.


@given(tree=trees(depth=4))
def test_rows_come_in_the_order_in_which_data_meets_the_weights(tree: Tree) -> None:
    rows = allocate(tree, lr=1.0).rows
    assert [row.path for row in rows] == [leaf.weight for leaf in leaves(tree) if leaf.weight]
    assert [row.path for row in rows] == [f"w{i}" for i in range(len(rows))]


@given(tree=trees(depth=4), lr=st.floats(0, 10))
def test_a_printed_budget_shows_every_row(tree: Tree, lr: float) -> None:
    budget = allocate(tree, lr)
    lines = str(budget).splitlines()
    if not budget.rows:
        assert lines == [f"budget of lr={lr:g}: the network has no weights"]
        return
    assert len(lines) == len(budget.rows) + 3
    assert lines[0].split() == budget.header()
    for line, row in zip(lines[2:-1], budget.rows, strict=True):
        numbers = (row.mass, row.downstream, row.radius, row.share, row.step)
        assert line.split() == [row.path, row.manifold, row.norm, *(f"{n:.4g}" for n in numbers)]
    assert lines[-1].startswith(f"lr={lr:g}: one step moves the output by at most ")
    assert f" {lr * budget.first_order:.4g} to first order" in lines[-1]


def test_numbers_stand_to_the_right() -> None:
    budget = allocate(named(Series("", (atom(mass=10.0), atom(mass=0.25)))), lr=1.0)
    header, _, first, second, _ = str(budget).splitlines()
    end = header.index("mass") + len("mass")
    assert (first[:end].split()[-1], second[:end].split()[-1]) == ("10", "0.25")


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf, "0.1", None])
def test_bad_learning_rates_are_refused(lr: float) -> None:
    with pytest.raises(ArgumentError, match="lr must be finite and at least 0, got"):
        allocate(atom(), lr)


def test_a_learning_rate_of_zero_is_a_schedule_at_its_end() -> None:
    assert allocate(atom(), 0).rows[0].step == 0.0


# What does not compose.


def test_what_does_not_meet_is_refused_with_both_names_both_spaces_and_a_remedy() -> None:
    first = dataclasses.replace(atom(2, 3), path="body.0")
    second = dataclasses.replace(atom(4, 1), path="body.1")
    with pytest.raises(SpaceError) as caught:
        Series("body", (first, second))
    text = str(caught.value)
    for part in (
        "Atom(2, 3) at 'body.0'",
        "Atom(4, 1) at 'body.1'",
        "l2[3]",
        "l2[4]",
        "Change a size",
    ):
        assert part in text
    assert text.count("\n") == 0


def test_a_bond_between_does_not_hide_a_mismatch() -> None:
    with pytest.raises(
        SpaceError, match=r"Bond >> Atom\(4, 1\) must meet in one space, got l2\[3\] into l2\[4\]"
    ):
        Series("", (atom(2, 3), bond(), atom(4, 1)))


def test_branches_must_take_one_space() -> None:
    for kind in (Parallel, Sum):
        with pytest.raises(
            SpaceError,
            match=rf"{kind.__name__} of Atom\(2, 3\) and Atom\(4, 3\) must take one space",
        ):
            kind("", (atom(2, 3), bond(), atom(4, 3)))


def test_a_sum_must_give_one_space() -> None:
    with pytest.raises(
        SpaceError,
        match=r"Sum of Atom\(2, 3\) and Atom\(2, 4\) must give one space, got l2\[3\] and l2\[4\]",
    ):
        Sum("", (atom(2, 3), atom(2, 4)))
    with pytest.raises(SpaceError, match="must give one space"):
        Sum("", (bond(), atom(2, 3)))


def test_norms_must_agree_too() -> None:
    rms = dataclasses.replace(
        atom(), signature=Signature(1.0, 1.0, Space(3, "rms"), Space(3, "rms"))
    )
    with pytest.raises(SpaceError, match=r"l2\[3\] into rms\[3\]"):
        Series("", (atom(3, 3), rms))


def test_open_spaces_take_what_comes() -> None:
    open_series = Series("", (bond(), bond()))
    assert open_series.signature.source is None
    assert open_series.signature.target == SAME
    fan = Parallel("", (bond(), bond()))
    closed = Series("", (atom(2, 3), fan))
    assert closed.signature.target == ProductSpace((Space(3), Space(3)))
    before = Series("", (bond(), atom(2, 3)))
    assert before.signature.source == Space(2)
    with pytest.raises(SpaceError, match=r"\(l2\[3\] \+ l2\[3\]\) into l2\[3\]"):
        Series("", (atom(2, 3), fan, atom(3, 1)))


def test_a_sum_finds_the_space_of_a_part_that_takes_any() -> None:
    """Beside a part that gives three features, one that gives what it takes must take three."""
    reads = dataclasses.replace(bond(), label="Read", signature=Signature(0.0, 1.0, None, Space(3)))
    for parts in ((bond(), reads), (reads, bond())):
        joined = Sum("", parts).signature
        assert (joined.source, joined.target) == (Space(3), Space(3))
        with pytest.raises(SpaceError, match=r"l2\[4\] into l2\[3\]"):
            Series("", (atom(1, 4), Sum("", parts)))
    assert Sum("", (reads, reads)).signature.source is None


@pytest.mark.parametrize("kind", [Series, Parallel, Sum])
def test_nothing_to_compose_is_refused(kind: type[Series]) -> None:
    with pytest.raises(
        ArgumentError,
        match=rf"{kind.__name__}\(modules\) must hold at least one module, got none at 'head'",
    ):
        kind("head", ())


def bad_leaves() -> Iterator[tuple[dict[str, object], str]]:
    for bad in (-1.0, math.nan, math.inf, "1"):
        yield {"mass": bad}, "mass must be finite and at least 0"
    for bad in (-1.0, 0.0, math.nan, math.inf, None):
        yield {"sensitivity": bad}, "sensitivity must be finite and positive"
    for bad in (-1.0, 0.0, math.nan, math.inf):
        yield {"norm_constant": bad}, "norm_constant must be finite and positive"
    for bad in (-1.0, math.nan, math.inf):
        yield {"offset": bad}, "offset must be finite and at least 0"


@pytest.mark.parametrize(("numbers", "message"), list(bad_leaves()))
def test_bad_numbers_are_refused(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        atom(**numbers)  # pyright: ignore[reportArgumentType]


def test_a_bond_has_no_mass_and_a_slope_no_sign() -> None:
    with pytest.raises(
        ArgumentError, match="Bond: mass must be 0 for a module without a weight, got 1"
    ):
        Leaf("", "Bond", Signature(1.0, 1.0, None, SAME), lipschitz=1.0)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ArgumentError, match="lipschitz must be positive"):
            Leaf("", "Bond", Signature(0.0, 1.0, None, SAME), lipschitz=bad)


@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf, "2"])
def test_bad_factors_are_refused(factor: float) -> None:
    with pytest.raises(ArgumentError, match=r"Scale\(factor\) must be finite and not 0, got"):
        Scale("", factor, bond())


def test_a_target_cannot_be_open_where_the_source_is_not() -> None:
    with pytest.raises(
        ArgumentError,
        match=r"target must not contain SAME if the source is fixed, got l2\[3\] to same",
    ):
        Signature(0.0, 1.0, Space(3), SAME)


def test_a_budget_is_a_value() -> None:
    tree = named(Series("", (atom(), atom())))
    assert allocate(tree, 0.1) == allocate(tree, 0.1)
    assert isinstance(allocate(tree, 0.1), Budget)
    with pytest.raises(dataclasses.FrozenInstanceError):
        allocate(tree, 0.1).lr = 0.2  # pyright: ignore[reportAttributeAccessIssue]


def bond_at(path: str, sensitivity: float, **more: Any) -> Leaf:
    """A bond on any space, unless `source` says otherwise."""
    source, target = more.pop("source", None), more.pop("target", SAME)
    own = Signature(0.0, sensitivity, source, target)
    return Leaf(path, path, own, lipschitz=sensitivity, **more)


def test_the_parts_of_a_tuple_keep_their_sizes() -> None:
    """A product x·y, whose slope is the larger of the two sizes, is told both of them."""
    line = Space(1)
    told: list[Radius] = []

    def within(radius: Radius) -> float:
        told.append(radius)
        first, second = each_of(radius, 2)
        return max(total(first), total(second))

    times = bond_at("times", 1.0, source=ProductSpace((line, line)), target=line, within=within)
    two = Parallel(
        "", (bond_at("a", 2.0, source=line, target=line), Scale("", -5.0, bond_at("b", 1.0)))
    )
    tree = Series("", (two, bond_at("any", 1.0, offset=0.5), times))
    # 2 and 5, and half more through the offset of each part.
    assert slope(tree, 1.0) == pytest.approx(7 * 5.5)
    assert set(told) == {(2.5, 5.5)}
    assert output_bound(tree, 1.0) == pytest.approx(5.5 * 8)
    assert slope(times, 3.0) == 3.0


def test_a_slope_that_grows_is_taken_part_by_part() -> None:
    square = bond_at("square", 1.0, within=total)
    assert slope(square, (1.0, (4.0, 2.0))) == 4.0
    assert output_bound(square, (1.0, (4.0, 2.0))) == (1.0, (16.0, 4.0))


def test_an_output_is_no_larger_than_its_module_ever_gives() -> None:
    tree = Series("", (Scale("", 9.0, bond_at("a", 1.0)), bond_at("b", 2.0, largest=3.0)))
    assert output_bound(tree, 0.1) == pytest.approx(1.8)
    assert output_bound(tree, 1.0) == output_bound(tree, math.inf) == 3.0
    with pytest.raises(ArgumentError, match="largest must be at least 0"):
        bond_at("c", 1.0, largest=-1.0)


def test_sizes_add_part_by_part_where_they_are_known_so() -> None:
    assert added([(1.0, 2.0), (3.0, 4.0)]) == (4.0, 6.0)
    assert added([(1.0, 2.0), 3.0]) == 6.0
    assert scaled(-2.0, (1.0, (math.inf, 0.0))) == (2.0, (math.inf, 0.0))
    assert total((1.0, (2.0, 3.0))) == 6.0

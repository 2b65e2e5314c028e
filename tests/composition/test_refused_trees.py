"""Trees that do not compose are refused with their names, their spaces and a remedy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
from trees import atom, bond

from modular_manifolds.composition import (
    SAME,
    ProductSpace,
    Signature,
    Space,
)
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum
from modular_manifolds.errors import ArgumentError, SpaceError


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

"""Spaces say how many features and how they are measured; conversions between norms are the best possible."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modular_manifolds.composition import (
    SAME,
    VECTOR_NORMS,
    AnySpace,
    ProductSpace,
    Space,
    VectorNorm,
    conversion,
)
from modular_manifolds.composition.rules import total
from modular_manifolds.composition.signature import Signature
from modular_manifolds.composition.space import MismatchError, is_open, substitute, unify
from modular_manifolds.errors import ArgumentError
from modular_manifolds.testing.measure import vector_norm

spaces = st.builds(Space, st.integers(1, 3), st.sampled_from(VECTOR_NORMS))
closed = st.recursive(
    spaces,
    lambda parts: st.lists(parts, max_size=3).map(lambda p: ProductSpace(tuple(p))),
    max_leaves=4,
)
opened = st.recursive(
    spaces | st.just(SAME),
    lambda parts: st.lists(parts, max_size=3).map(lambda p: ProductSpace(tuple(p))),
    max_leaves=4,
)


@pytest.mark.parametrize("given_norm", VECTOR_NORMS)
@pytest.mark.parametrize("wanted", VECTOR_NORMS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_conversions_hold_and_are_attained(
    given_norm: VectorNorm, wanted: VectorNorm, size: int
) -> None:
    """`‖x‖_wanted ≤ c ‖x‖_given`, and a coordinate vector or the vector of ones reaches c."""
    c = conversion(given_norm, wanted, size)
    extreme = torch.stack([torch.eye(size)[0], torch.ones(size)]).double()
    x = torch.cat((extreme, torch.randn(200, size).double(), torch.randn(50, size).double().sign()))
    ratio = vector_norm(x, wanted) / vector_norm(x, given_norm)
    assert float(ratio.max()) == pytest.approx(c, rel=1e-13)
    assert float(ratio[:2].max()) == pytest.approx(c, rel=1e-13)


@given(
    spaces=st.lists(st.sampled_from(VECTOR_NORMS), min_size=3, max_size=3), size=st.integers(1, 9)
)
def test_a_detour_is_never_shorter(spaces: list[VectorNorm], size: int) -> None:
    a, b, c = spaces
    detour = conversion(a, b, size) * conversion(b, c, size)
    assert conversion(a, c, size) <= detour * (1 + 1e-14)


@given(space=opened, same=closed)
def test_substitution_closes_a_space(space: AnySpace, same: AnySpace) -> None:
    found = substitute(space, same)
    assert not is_open(found)
    assert (found == space) == (not is_open(space))


@given(offered=opened, same=closed)
def test_unification_finds_what_was_put_in(offered: AnySpace, same: AnySpace) -> None:
    binding = unify(offered, substitute(offered, same))
    assert binding == (same if is_open(offered) else None)


@given(offered=closed, required=closed)
def test_closed_spaces_unify_only_with_themselves(offered: AnySpace, required: AnySpace) -> None:
    if offered == required:
        assert unify(offered, required) is None
    else:
        with pytest.raises(MismatchError):
            unify(offered, required)


def test_one_same_cannot_be_two_spaces() -> None:
    with pytest.raises(MismatchError):
        unify(ProductSpace((SAME, SAME)), ProductSpace((Space(2), Space(3))))


def test_spaces_read_well() -> None:
    assert str(Space(3, "rms")) == "rms[3]"
    assert str(ProductSpace((Space(3), Space(2, "l1")))) == "(l2[3] + l1[2])"
    assert Space(3) == Space(3, "l2") != Space(3, "rms")
    assert len({Space(3), Space(3), Space(4)}) == 2


@pytest.mark.parametrize("size", [0, -1, 1.0, True, "3", None])
def test_bad_sizes_are_refused(size: int) -> None:
    with pytest.raises(ArgumentError, match=r"Space\(size\) must be a positive whole number, got"):
        Space(size)


@pytest.mark.parametrize("norm", ["l3", "L2", "", None, math.inf])
def test_bad_norms_are_refused(norm: VectorNorm) -> None:
    with pytest.raises(ArgumentError, match=r"Space\(norm\) must be one of rms, l2, l1, linf, got"):
        Space(3, norm)


def test_a_sum_finds_the_space_of_a_part_that_takes_any() -> None:
    keeps = Signature(0.0, 1.0, None, SAME)
    gives = Signature(0.0, 1.0, None, Space(3))
    for parts in ([keeps, gives], [gives, keeps, keeps]):
        found = total(parts)
        assert found.source == found.target == Space(3)
    with pytest.raises(MismatchError):
        total([keeps, gives, Signature(0.0, 1.0, None, Space(4))])

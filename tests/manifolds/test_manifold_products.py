"""A product of manifolds works weight by weight."""

from __future__ import annotations

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ShapeError

PRODUCT = mm.Product({"a": mm.Stiefel(2.0), "b": mm.Sphere(), "c": mm.Euclidean()})
SHAPES = {"a": (5, 3), "b": (4,), "c": (2, 2)}


def test_a_product_works_weight_by_weight() -> None:
    point = PRODUCT.random(SHAPES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vector = {name: torch.randn_like(w) for name, w in point.items()}
    for name, manifold in PRODUCT.manifolds.items():
        w, v = point[name], vector[name]
        assert w.shape == SHAPES[name]
        assert w.dtype == torch.float64
        assert torch.equal(PRODUCT.project(vector)[name], manifold.project(v))
        assert torch.equal(PRODUCT.tangent(point, vector)[name], manifold.tangent(w, v))
        assert torch.equal(PRODUCT.retract(point, vector)[name], manifold.retract(w, v))
        assert torch.equal(PRODUCT.residual(vector)[name], manifold.residual(v))
        assert float(PRODUCT.residual(point)[name]) <= 1e-12
    PRODUCT.check_shape(SHAPES)
    assert str(PRODUCT) == "a: Stiefel(radius=2) × b: Sphere × c: Euclidean"


def test_a_product_does_not_mind_the_order_of_names() -> None:
    point = PRODUCT.random(SHAPES)
    vector = {name: torch.randn_like(w) for name, w in point.items()}
    backwards = dict(reversed(vector.items()))
    for name, found in PRODUCT.tangent(point, backwards).items():
        assert torch.equal(found, PRODUCT.tangent(point, vector)[name])


def test_a_product_names_what_does_not_fit() -> None:
    point = PRODUCT.random(SHAPES)
    missing = {name: w for name, w in point.items() if name != "b"}
    for call in (
        lambda: PRODUCT.project(missing),
        lambda: PRODUCT.tangent(point, missing),
        lambda: PRODUCT.retract(missing, point),
        lambda: PRODUCT.residual({**point, "d": point["a"]}),
    ):
        with pytest.raises(
            ArgumentError, match=r"Product\.\w+\(\w+\) must name exactly a, b, c, got"
        ):
            call()
    with pytest.raises(
        ShapeError, match=r"b must be \(n,\) or .* without empty dimensions for Sphere"
    ):
        PRODUCT.check_shape({**SHAPES, "b": (0,)})

"""Convolutions and pools keep the laws, pools attain their constants, and smaller constants are refuted."""

from __future__ import annotations

import copy
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.testing import Sample, check_module

CONVOLUTIONS: dict[str, Any] = {
    "same": {"kernel_size": 3, "size": 5, "padding": 1},
    "strided": {"kernel_size": (3, 2), "size": (5, 6), "stride": (2, 1), "padding": (1, 0)},
    "grouped": {"kernel_size": 2, "size": 4, "groups": 2},
    "one pixel": {"kernel_size": 1, "size": 3},
    "euclidean": {"kernel_size": 3, "size": 4, "manifold": mm.Euclidean(), "groups": 2},
}

POOLS = {
    "mean": lambda: mm.MeanPool(2, 2, size=4),
    "mean, left out": lambda: mm.MeanPool(2, (2, 3), size=(5, 7)),
    "mean, overlapping": lambda: mm.MeanPool(1, 3, size=6, stride=(1, 3)),
    "mean, global": lambda: mm.MeanPool(3, (3, 4), size=(3, 4)),
    "max": lambda: mm.MaxPool(2, 2, size=4),
    "max, overlapping": lambda: mm.MaxPool(2, 3, size=6, stride=2),
}


@pytest.mark.parametrize("dtype", mostly_long(cases.DTYPES, usual=2), ids=cases.name)
@pytest.mark.parametrize("arguments", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_keep_the_laws(arguments: dict[str, Any], dtype: torch.dtype) -> None:
    conv = mm.Conv2d(4, 2, **arguments).to(dtype)
    conv.reset_parameters()
    check_module(conv, Sample((7,), dtype=dtype))


@pytest.mark.parametrize("dtype", mostly_long(cases.DTYPES, usual=2), ids=cases.name)
@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_pools_keep_the_laws(make: Any, dtype: torch.dtype) -> None:
    check_module(make(), Sample((7,), dtype=dtype))


@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_the_constant_of_a_pool_is_attained_or_nearly(make: Any) -> None:
    """At its Jacobian: exactly where windows do not overlap; no smaller constant would do."""
    pool = make()
    x = torch.randn(pool.source.size, dtype=torch.float64)
    slope = float(torch.linalg.matrix_norm(torch.func.jacrev(pool)(x), ord=2))
    assert slope <= pool.sensitivity * (1 + 1e-12)
    if pool.windows.overlap == 1:
        assert slope == pytest.approx(pool.sensitivity)
    else:
        # A larger image, far from its border.
        wide = type(pool)(1, pool.windows.kernel, size=25, stride=pool.windows.stride)
        high, left = (12, 12) if isinstance(pool, mm.MaxPool) else (slice(None), slice(None))
        image = torch.zeros(25, 25, dtype=torch.float64)
        image[high, left] = 1.0
        moved = wide(image.flatten()).norm() / image.norm()
        assert float(moved) > 0.9 * wide.sensitivity


def test_a_pool_is_torch_s() -> None:
    images = torch.randn(2, 3, 5, 6)
    mean, largest = (
        mm.MeanPool(3, 2, size=(5, 6)),
        mm.MaxPool(3, (3, 2), size=(5, 6), stride=(1, 2)),
    )
    x = mm.Flatten()(images)
    torch.testing.assert_close(mean(x), functional.avg_pool2d(images, 2).flatten(1))
    torch.testing.assert_close(largest(x), functional.max_pool2d(images, (3, 2), (1, 2)).flatten(1))
    assert (mean.output_size, largest.output_size) == ((2, 3), (3, 3))
    everything = mm.MeanPool(3, (5, 6), size=(5, 6))
    torch.testing.assert_close(everything(x), images.mean(dim=(-1, -2)))


class Understated(mm.Conv2d):
    """A convolution that does not divide by as much as it declares."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


class UnderstatedMean(mm.MeanPool):
    """The same of a pool."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


class UnderstatedMax(mm.MaxPool):
    """The same of a pool."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: cases.in_double(Understated(1, 3, 1, size=2)),
        lambda: cases.in_double(Understated(2, 2, 1, size=2, groups=2)),
        lambda: UnderstatedMean(1, 2, size=2),
        lambda: UnderstatedMax(1, 2, size=2),
    ],
)
def test_constants_that_are_too_small_are_refuted(make: Any) -> None:
    with pytest.raises(AssertionError, match="sensitivity bounds the slope"):
        check_module(make(), Sample((7,), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_rounding_of_convolutions_and_pools_stays_within_its_bound(dtype: torch.dtype) -> None:
    modules: list[Any] = [mm.Conv2d(4, 2, **arguments) for arguments in CONVOLUTIONS.values()]
    modules += [make() for make in POOLS.values()]
    for module in modules:
        module = module.requires_grad_(False).to(dtype)
        exact = copy.deepcopy(module).double()
        for scale in (1e-3, 1.0, 1e3):
            x = (scale * torch.randn(50, module.source.size)).to(dtype)
            off = (module(x).double() - exact(x.double())).norm(dim=-1)
            allowed = [
                module.rounding_within(float(each), dtype) for each in x.double().norm(dim=-1)
            ]
            assert bool((off <= torch.tensor(allowed, dtype=torch.float64)).all()), module
            assert max(allowed) <= 2e3 * torch.finfo(dtype).eps * scale

"""Every norm obeys the laws and is the norm its docstring names; the modular norm joins them."""

from __future__ import annotations

import copy
import dataclasses
import math

import cases
import numpy as np
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.testing import NORM_LAWS, NormLaw, Sample, check_norm


@pytest.mark.parametrize("norm", cases.NORMS, ids=cases.name)
@pytest.mark.parametrize("law", NORM_LAWS, ids=cases.name)
def test_law(law: NormLaw, norm: mm.Norm) -> None:
    for shape, dtype in cases.ROOMS:
        with cases.Trying(shape, dtype):
            law(norm, Sample(shape, dtype, accuracy=norm.accuracy))


@dataclasses.dataclass(frozen=True)
class Broken(mm.Norm):
    """The Frobenius norm, with one fault."""

    fault: str = "none"
    source = "l2"
    target = "l2"

    def norm_constant(self, shape: tuple[int, int]) -> float:
        del shape
        return 0.5 if self.fault == "constant too small" else 1.0

    def _value(self, x: Tensor) -> Tensor:
        if self.fault == "square":
            return x.square().sum(dim=(-2, -1), keepdim=True)
        if self.fault == "square root of sizes":
            return x.abs().sqrt().sum(dim=(-2, -1), keepdim=True).square()
        if self.fault == "overflows":
            return x.square().sum(dim=(-2, -1), keepdim=True).sqrt()
        if self.fault == "norm of the stack" and x.dim() > 2:
            return torch.linalg.vector_norm(x).expand(*x.shape[:-2], 1, 1)
        if self.fault == "forgets a row":
            x = x[..., 1:, :]
        return mm.Frobenius()._value(x)  # pyright: ignore[reportPrivateUsage]

    def _dual(self, x: Tensor) -> Tensor:
        if self.fault == "dual too small":
            return 0.9 * self._value(x)
        if self.fault == "dual too large":
            return 1.1 * self._value(x)
        return mm.Frobenius()._dual(x)  # pyright: ignore[reportPrivateUsage]

    def _steepest(self, g: Tensor) -> Tensor:
        if self.fault == "uphill":
            return g / torch.linalg.matrix_norm(g, keepdim=True)
        if self.fault == "too long":
            return 1.5 * mm.Frobenius().steepest(g)
        if self.fault == "divides by zero":
            return -g / mm.Frobenius().value(g)[..., None, None]
        if self.fault == "adds an epsilon":
            return -g / (torch.linalg.matrix_norm(g, keepdim=True) + 1e-7)
        if self.fault == "writes":
            g.mul_(1.0)
        return mm.Frobenius().steepest(g)


FAULTS = {
    "constant too small": "norm_constant",
    "square": "homogeneous",
    "square root of sizes": "triangle|homogeneous",
    "overflows": "homogeneous",
    "norm of the stack": "one by one",
    "forgets a row": "dual|positive|length",
    "dual too small": "dual",
    "dual too large": "attains the dual",
    "uphill": "attains the dual|zero",
    "too long": "length 1",
    "divides by zero": "zero",
    "adds an epsilon": "times as large",
    "writes": "written into|attains|zero",
}


def test_a_norm_without_fault_passes() -> None:
    check_norm(Broken(), Sample((5, 4)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_laws_find_faults(fault: str) -> None:
    """In float32, where squares of 1e30 overflow."""
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_norm(Broken(fault=fault), Sample((5, 4), torch.float32))


def test_values_are_those_of_numpy() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    a = x.numpy()
    singular = np.linalg.svd(a, compute_uv=False)
    rows = np.sqrt((a**2).mean(axis=-1))
    expected = {
        mm.Frobenius(): (np.sqrt((a**2).sum((1, 2))), np.sqrt((a**2).sum((1, 2)))),
        mm.Max(): (np.abs(a).max((1, 2)), np.abs(a).sum((1, 2))),
        mm.Spectral(): (singular[:, 0], singular.sum(1)),
        mm.RMSOperator(): (
            math.sqrt(4 / 5) * singular[:, 0],
            math.sqrt(5 / 4) * singular.sum(1),
        ),
        mm.RowRMS(): (rows.max(1), 4 * rows.sum(1)),
    }
    assert set(expected) == set(cases.NORMS), "a norm without a formula here"
    for norm, (value, dual) in expected.items():
        np.testing.assert_allclose(norm.value(x).numpy(), value, rtol=1e-13)
        np.testing.assert_allclose(norm.dual(x).numpy(), dual, rtol=1e-13)


def test_steepest_directions_are_those_of_the_table() -> None:
    """MATH.md section 1: sign descent, Muon with and without width, normalised rows and gradients."""
    g = torch.randn(6, 4, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    expected = {
        mm.Frobenius(): -g / g.norm(),
        mm.Max(): -g.sign(),
        mm.Spectral(): -u @ vh,
        mm.RMSOperator(): -math.sqrt(6 / 4) * u @ vh,
        mm.RowRMS(): -2.0 * g / g.norm(dim=1, keepdim=True),
    }
    assert set(expected) == set(cases.NORMS), "a norm without a formula here"
    for norm, direction in expected.items():
        atol = max(1e-14, 2 * norm.accuracy)
        torch.testing.assert_close(norm.steepest(g), direction, atol=atol, rtol=0)


@pytest.mark.parametrize("norm", [mm.Max(), mm.Spectral(), mm.RMSOperator()], ids=cases.name)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4)], ids=cases.name)
def test_operator_norms_are_attained(norm: mm.Norm, shape: tuple[int, int]) -> None:
    """These are the operator norms themselves: some vector reaches the bound."""
    w = torch.randn(shape, dtype=torch.float64)
    candidates = torch.cat((torch.eye(shape[1], dtype=torch.float64), torch.linalg.svd(w)[2]))
    orders = {"l1": 1.0, "l2": 2.0, "rms": 2.0, "linf": math.inf}

    def length(x: Tensor, kind: str) -> Tensor:
        mean = 1 / math.sqrt(x.shape[-1]) if kind == "rms" else 1.0
        return mean * torch.linalg.vector_norm(x, ord=orders[kind], dim=-1)

    ratio = length(candidates @ w.mT, norm.target) / length(candidates, norm.source)
    assert float(ratio.max()) == pytest.approx(norm.norm_constant(shape) * float(norm.value(w)))


@pytest.mark.parametrize("norm", cases.NORMS, ids=cases.name)
def test_bad_tensors_are_refused_in_words(norm: mm.Norm) -> None:
    for method in (norm.value, norm.dual, norm.steepest):
        with pytest.raises(ShapeError, match="without empty dimensions"):
            method(torch.zeros(3, 0))
        with pytest.raises(
            ArgumentError, match=r"must be a real floating-point tensor, got torch\.int64"
        ):
            method(torch.ones(3, 3, dtype=torch.int64))
        with pytest.raises(ArgumentError, match="must be a real floating-point tensor, got list"):
            method([1.0])  # pyright: ignore[reportArgumentType]


def test_norms_are_values() -> None:
    for norm in cases.NORMS:
        assert copy.deepcopy(norm) == norm == type(norm)()
        assert str(norm) == type(norm).__name__


WEIGHTS = {"a": (5, 3), "b": (3, 5), "c": (2, 2)}
MODULAR = mm.ModularNorm(
    {"a": mm.Spectral(), "b": mm.Max(), "c": mm.Frobenius()}, {"a": 0.5, "b": 0.25, "c": 2.0}
)


def weights() -> dict[str, Tensor]:
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in WEIGHTS.items()}


def test_the_modular_norm_is_the_largest_part_over_its_share() -> None:
    w = weights()
    parts = [float(MODULAR.norms[k].value(w[k])) / MODULAR.shares[k] for k in w]
    assert float(MODULAR.value(w)) == pytest.approx(max(parts))


def test_the_modular_norm_and_its_dual_are_a_pair() -> None:
    g = weights()
    direction = MODULAR.steepest(g)
    descent = -sum(float((g[k] * direction[k]).sum()) for k in g)
    assert float(MODULAR.value(direction)) == pytest.approx(1.0, abs=2e-3)
    assert descent == pytest.approx(float(MODULAR.dual(g)), rel=2e-3)
    for _ in range(20):
        other = weights()
        bound = float(MODULAR.dual(g)) * float(MODULAR.value(other))
        assert sum(float((g[k] * other[k]).sum()) for k in g) <= bound


def test_moving_a_frozen_weight_is_infinitely_long() -> None:
    norm = mm.ModularNorm({"a": mm.Frobenius(), "b": mm.Frobenius()}, {"a": 1.0, "b": 0.0})
    moved = {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}
    still = {"a": torch.ones(2, 2), "b": torch.zeros(2, 2)}
    assert float(norm.value(moved)) == math.inf
    assert float(norm.value(still)) == pytest.approx(2.0)
    assert float(norm.dual(moved)) == pytest.approx(2.0)
    assert torch.equal(norm.steepest(moved)["b"], torch.zeros(2, 2))


def test_the_modular_norm_names_what_does_not_fit() -> None:
    w = weights()
    del w["b"]
    for method in (MODULAR.value, MODULAR.dual, MODULAR.steepest):
        with pytest.raises(
            ArgumentError, match=r"ModularNorm\(weights\) must name exactly a, b, c, got a, c"
        ):
            method(w)

"""Atoms that are no matrix product: embedding, bias and gain."""

from __future__ import annotations

import copy
import math
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.composition import VECTOR_NORMS
from modular_manifolds.errors import ArgumentError, UnsupportedPairError
from modular_manifolds.testing import Sample, check_module
from modular_manifolds.testing.measure import vector_norm

NORMS: tuple[Any, ...] = VECTOR_NORMS
ATOMS: dict[str, Any] = {
    "embedding": lambda: mm.Embedding(9, 6),
    "embedding of one feature": lambda: mm.Embedding(4, 1),
    "embedding, another radius": lambda: mm.Embedding(5, 4, manifold=mm.Oblique(0.7)),
    "embedding, balanced": lambda: mm.Embedding(5, 4, manifold=mm.BalancedRows(3.0)),
    "embedding, euclidean": lambda: mm.Embedding(5, 4, manifold=mm.Euclidean()),
    **{f"bias in {n}": lambda n=n: mm.Bias(5, radius=2.0, vector_norm=n) for n in NORMS},
    **{f"gain in {n}": lambda n=n: mm.Gain(5, radius=1.5, vector_norm=n) for n in NORMS},
    "bias of a small input": lambda: 0.5 * mm.Identity() >> mm.Bias(5) >> mm.Gain(5),
}


def drawn(name: str, dtype: torch.dtype = torch.float64) -> mm.Module:
    """The module with a weight that is a random point of its manifold."""
    module = ATOMS[name]().to(dtype)
    weights = dict(module.named_parameters())
    for path, geometry in module.geometries():
        weight = weights[path]
        with torch.no_grad():
            weight.copy_(geometry.initial(tuple(weight.shape), dtype))
    return module


@pytest.mark.parametrize("dtype", mostly_long(cases.DTYPES, usual=2), ids=cases.name)
@pytest.mark.parametrize("name", ATOMS)
def test_atoms_keep_the_laws(name: str, dtype: torch.dtype) -> None:
    check_module(drawn(name, dtype), Sample((7,), dtype=dtype))


class Understated:
    """Mixed in: computes a little more than the atom declares."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.9  # pyright: ignore


class LargerEmbedding(Understated, mm.Embedding):
    pass


class LargerBias(Understated, mm.Bias):
    pass


class LargerGain(Understated, mm.Gain):
    pass


@pytest.mark.parametrize("kind", [LargerEmbedding, LargerBias, LargerGain])
def test_constants_that_are_too_small_are_refuted(kind: Any) -> None:
    module = kind(*((4, 3) if kind is LargerEmbedding else (4,))).double()
    module.reset_parameters()
    with pytest.raises(AssertionError, match="sensitivity bounds the slope"):
        check_module(module, Sample((7,), dtype=torch.float64))


@pytest.mark.parametrize("name", mostly_long(ATOMS, usual=3))
def test_certified_bounds_hold_for_weights_off_their_manifold(name: str) -> None:
    module = drawn(name)
    for factor in (0.3, 2.5):
        changed = copy.deepcopy(module)
        with torch.no_grad():
            for weight in changed.parameters():
                weight.mul_(factor)
        report = mm.lipschitz(changed)
        assert report.empirical <= report.certified
        assert report.certified <= 3 * report.empirical


# Embedding.


def test_an_embedding_looks_rows_up() -> None:
    net = mm.Embedding(7, 3)
    tokens = torch.randint(7, (2, 5))
    assert torch.equal(net(tokens), net.weight[tokens])
    assert torch.equal(net(tokens.int()), net.weight[tokens])
    one_hot = torch.nn.functional.one_hot(tokens, 7).float()
    torch.testing.assert_close(net(one_hot), net(tokens))
    assert (net.source, net.target) == (mm.Space(7, "l1"), mm.Space(3, "rms"))


def test_every_row_of_an_embedding_has_rms_one_before_and_after_steps() -> None:
    net = mm.Embedding(11, 6) >> mm.Linear(6, 3, norm=mm.RMSOperator())
    embedding = net.get_submodule("0")
    assert isinstance(embedding, mm.Embedding)
    opt = mm.SteepestDescent(net, lr=0.3, momentum=0.9)
    before = embedding.weight.detach().clone()
    tokens, targets = torch.randint(10, (32,)), torch.randint(3, (32,))
    for _ in range(5):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(net(tokens), targets).backward()
        opt.step()
    torch.testing.assert_close(
        embedding.weight.square().mean(dim=-1), torch.ones(11), rtol=1e-5, atol=1e-5
    )
    moved = (embedding.weight - before).abs().amax(dim=-1) > 1e-4
    assert bool(moved[:10].any())
    assert not bool(moved[10]), "a token that was not seen stays where it is"


def test_tokens_and_vectors_are_not_confused() -> None:
    net = mm.Embedding(7, 3)
    message = (
        r"whole-number tokens, or real vectors of 7 features, got torch.float32 of shape \(2, 5\)"
    )
    with pytest.raises(ArgumentError, match=message):
        net(torch.zeros(2, 5))
    with pytest.raises(UnsupportedPairError):
        mm.Embedding(7, 3, manifold=mm.Stiefel())
    for bad in (0, True, 2.0):
        with pytest.raises(ArgumentError, match=r"Embedding\(features\) must be a positive whole"):
            mm.Embedding(7, bad)  # pyright: ignore


# Bias.


def test_a_bias_starts_at_zero_and_stays_in_its_ball() -> None:
    net = mm.Bias(4, radius=0.5, vector_norm="rms")
    assert torch.equal(net.weight, torch.zeros(4))
    x = torch.randn(3, 4)
    assert torch.equal(net(x), x)
    opt = mm.SteepestDescent(net, lr=0.2)
    for _ in range(5):
        opt.zero_grad()
        net(x).sum().backward()
        opt.step()
    torch.testing.assert_close(net.weight.detach(), torch.full((4,), -0.25))
    net.reset_parameters()
    assert torch.equal(net.weight, torch.zeros(4))


def test_the_reach_of_a_bias_is_its_radius_in_the_norm_of_its_space() -> None:
    factors: dict[Any, float] = {"l2": 1.0, "rms": 0.5, "l1": 2.0, "linf": 1.0}
    for norm, factor in factors.items():
        net = mm.Bias(4, radius=3.0, vector_norm=norm)
        rows = mm.activations(net, radius=2.0).rows
        assert rows[0].output.declared == pytest.approx(2.0 + 3.0 * factor)
        assert rows[0].output.certified == pytest.approx(2.0)
        with torch.no_grad():
            net.weight.copy_(torch.tensor([0.6, 0.8, 0.0, 0.0]))
        (row,) = mm.activations(2.0 * net, radius=2.0).rows
        assert row.output.certified == pytest.approx(2.0 + factor)


def test_a_step_of_a_bias_counts_in_full_behind_a_small_input() -> None:
    """The derivative by b is the identity whatever comes in: a radius of 0.01 does not make it smaller."""
    net = 0.01 * mm.Identity() >> mm.Bias(3) >> mm.Linear(3, 3)
    rows = mm.budget(net).rows
    assert [row.contribution for row in rows] == pytest.approx([0.5, 0.5 * 1.01])
    rows = mm.budget(100 * mm.Identity() >> mm.Bias(3)).rows
    assert rows[0].contribution == pytest.approx(1.0)


# Gain.


def test_a_gain_starts_at_one_and_stays_in_its_box() -> None:
    net = mm.Gain(3, radius=1.2)
    assert torch.equal(net.weight.flatten(), torch.ones(3))
    assert torch.equal(mm.Gain(3, radius=0.5).weight.flatten(), torch.full((3,), 0.5))
    x = torch.randn(8, 3)
    torch.testing.assert_close(net(x), x)
    opt = mm.SteepestDescent(net, lr=0.1)
    for _ in range(5):
        opt.zero_grad()
        (net(x) * torch.tensor([1.0, -1.0, 0.0]) * x.sign()).sum().backward()
        opt.step()
    # Sign descent: down, up to the wall, and nowhere without a gradient.
    shares = 5 * 0.1
    torch.testing.assert_close(
        net.weight.detach().flatten(), torch.tensor([1 - shares / 1.0, 1.2, 1.0])
    )
    assert mm.lipschitz(net).certified == pytest.approx(1.2)
    assert net.modular_norm.value({"weight": net.weight.detach()}) == pytest.approx(1.2)


def test_certified_takes_the_weights_as_they_are() -> None:
    net = mm.Gain(4, radius=10.0)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([0.5, -2.0, 1.0, 0.0]).reshape(4, 1, 1))
    report = mm.lipschitz(net)
    assert (report.declared, report.certified) == (pytest.approx(10.0), pytest.approx(2.0))


@pytest.mark.parametrize(
    "dtype", mostly_long([torch.float32, torch.float64, torch.bfloat16], usual=3)
)
def test_the_rounding_of_atoms_stays_within_its_bound(dtype: torch.dtype) -> None:
    for name in ATOMS:
        if ">>" in name or "small input" in name:
            continue
        module: Any = drawn(name).requires_grad_(False).to(dtype)
        exact = copy.deepcopy(module).double()
        space = module.source
        for scale in (1e-3, 1.0, 1e3):
            x = (scale * torch.randn(200, space.size)).to(dtype)
            off = vector_norm(module(x).double() - exact(x.double()), module.target.norm)
            sizes = vector_norm(x.double(), space.norm)
            allowed = [module.rounding_within(float(each), dtype) for each in sizes]
            assert bool((off <= torch.tensor(allowed, dtype=torch.float64)).all()), name
            assert all(math.isfinite(each) for each in allowed)


@pytest.mark.parametrize("name", ATOMS)
def test_saved_atoms_come_back(name: str, tmp_path: Any) -> None:
    module = drawn(name)
    mm.save(module, tmp_path / "net.safetensors")
    back = mm.load(tmp_path / "net.safetensors")
    assert back.tree() == module.tree()
    for one, other in zip(back.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, other)

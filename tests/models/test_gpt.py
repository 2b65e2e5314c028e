"""The language model: what it computes, what its declared numbers promise, and that it learns within them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from modular_manifolds_bench.language import plain_twin
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

VOCABULARY = 11


def small(**arguments: Any) -> mm.Module:
    return mm.models.GPT(VOCABULARY, **{"width": 16, "depth": 2, "heads": 2, **arguments})


def counting(batch: int, positions: int) -> Tensor:
    """Sequences that count on from a random start."""
    starts = torch.randint(VOCABULARY, (batch, 1))
    return (starts + torch.arange(positions + 1)) % VOCABULARY


@cache
def trained() -> tuple[mm.Module, float, float]:
    """A net after a few steps, and its loss before and after."""
    torch.manual_seed(0)
    net = small()
    optimizer = mm.SteepestDescent(net, lr=1.0, momentum=0.9, nesterov=True)
    losses: list[float] = []
    for _ in range(20):
        tokens = counting(16, 8)
        loss = functional.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return net, losses[0], losses[-1]


def one_hot(tokens: Tensor) -> Tensor:
    return functional.one_hot(tokens, VOCABULARY).float()


def test_it_learns_and_its_weights_stay_on_their_manifolds() -> None:
    net, before, after = trained()
    assert after < before / 2
    assert all(row.residual < 1e-5 for row in mm.conditioning(net).rows)


def test_sizes_never_exceed_the_bounds() -> None:
    net, _, _ = trained()
    report = mm.activations(net, radius=1.0, points=one_hot(counting(32, 7)))
    for row in report.rows:
        for size in (row.input, row.output, row.gradient):
            assert size.measured is not None
            assert 0 < size.measured <= size.certified * (1 + 1e-6)
            assert size.certified <= size.declared * (1 + 1e-5)
    # Four branches, each of which adds up to 4/√4 of what it is given.
    assert report.rows[-1].output.declared <= (3 / 4 + 2) ** 4 * (1 + 1e-9)
    logits = net(counting(32, 7)).detach()
    largest = float(logits.square().mean(dim=-1).sqrt().max())
    assert 1.0 < largest <= 8.0 * report.rows[-1].output.certified
    # Not an empty promise: a token's vector has the size that is promised.
    assert report.rows[0].output.measured == pytest.approx(1.0, rel=1e-5)


def test_its_slope_is_bounded_for_tokens_only() -> None:
    net, _, _ = trained()
    report = mm.lipschitz(net, radius=1.0, points=one_hot(counting(4, 5)), iterations=5)
    assert math.isfinite(report.declared)
    assert 0 < report.empirical <= report.certified <= report.declared * (1 + 1e-4)
    kinds = [row.label for row in report.rows]
    assert kinds.count("CausalAttention") == 2
    assert kinds.count(f"Linear(16, {VOCABULARY})") == 1
    unbounded = mm.lipschitz(net, iterations=1, starts=1)
    assert math.isinf(unbounded.declared)
    assert any(
        "CausalAttention): its bound depends on the size" in line for line in unbounded.advice()
    )


@pytest.mark.parametrize("width", [16, 48])
@pytest.mark.parametrize("depth", [1, 3])
def test_its_rate_scale_and_masses_do_not_change_with_its_size(width: int, depth: int) -> None:
    net = small(width=width, depth=depth, logit_scale=5.0, branch_scale=3.0, masses=(1.0, 4.0, 2.0))
    assert net.rate_scale == pytest.approx(5.0)
    assert net.mass == pytest.approx(7.0)
    rows = mm.budget(net).rows
    assert rows[0].mass == 1.0
    assert rows[-1].mass == 2.0
    assert len(rows) == 6 * depth + 2
    # Every step is the same at every size: of the embedding, in the blocks, of the head.
    assert rows[0].share == pytest.approx(1 / 7 / 5)
    assert [row.share for row in rows[1:-1]] == pytest.approx([0.6 * 4 / 7 / 5] * (6 * depth))
    assert rows[-1].share == pytest.approx(2 / 7 / 5)
    gentle = small(width=width, depth=depth, branch_scale=1 / math.sqrt(2 * depth))
    assert all(row.radius <= 1 + 1e-9 for row in mm.budget(gentle).rows)
    # Attention's sharpness is left, which a scale of 1 takes away: then the learning rate is a bound.
    assert not mm.budget(gentle).is_bound
    soft = small(
        width=width, depth=depth, branch_scale=1 / math.sqrt(2 * depth), attention_scale=1.0
    )
    assert mm.budget(soft).is_bound
    assert soft.sensitivity <= soft.rate_scale * (1 + 1e-9)


@pytest.mark.parametrize("manifold", [mm.SpectralBall(), mm.Euclidean()])
def test_a_manifold_is_that_of_every_matrix(manifold: mm.Manifold) -> None:
    net = small(manifold=manifold)
    of_weight = {path: geometry.manifold for path, geometry in net.geometries()}
    table = of_weight.pop("embedding.weight")
    assert {type(each) for each in of_weight.values()} == {type(manifold)}
    assert isinstance(table, mm.Euclidean if isinstance(manifold, mm.Euclidean) else mm.Oblique)
    # From rms to rms they are as large as on the default manifold.
    assert net.sensitivity == pytest.approx(small().sensitivity)
    assert net.rate_scale == pytest.approx(small().rate_scale)


def test_the_budget_says_what_sharp_attention_may_cost() -> None:
    """Up to a scale of 1 a step moves the logits by its length at most; sharper attention may move them further."""
    gentle = mm.budget(small(attention_scale=1.0, branch_scale=0.5))
    assert gentle.first_order <= 1 + 1e-9
    sharp = mm.budget(small(attention_scale=16.0, branch_scale=0.5))
    assert [row.share for row in sharp.rows] == pytest.approx([row.share for row in gentle.rows])
    assert sharp.first_order > 2
    assert all(row.slope >= row.downstream * (1 - 1e-9) for row in sharp.rows)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_no_position_sees_a_later_one(kv_heads: int) -> None:
    net = small(heads=4, kv_heads=kv_heads).double()
    tokens = counting(2, 9)[:, :-1]
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 3) % VOCABULARY
    before, after = net(tokens), net(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-12)
    assert bool(((after - before)[:, 5:].abs().amax(dim=-1) > 1e-6).all())
    torch.testing.assert_close(net(tokens[:, :4]), before[:, :4])


def test_it_is_what_plain_torch_computes() -> None:
    net = small(attention_scale=30.0, logit_scale=3.0, branch_scale=7.0)
    twin = plain_twin(net, depth=2, heads=2, context=6, scales=(30.0, 3.0, 7.0))
    tokens = counting(3, 6)[:, :-1]
    mine, theirs = net(tokens), twin(tokens)
    torch.testing.assert_close(mine, theirs)
    weights = torch.randn(mine.shape)
    (mine * weights).sum().backward()
    (theirs * weights).sum().backward()
    gradient = dict(net.named_parameters())["embedding.weight"].grad
    torch.testing.assert_close(gradient, twin.embedding.weight.grad)


def test_one_hot_vectors_are_tokens() -> None:
    net = small()
    tokens = counting(3, 6)
    torch.testing.assert_close(net(one_hot(tokens)), net(tokens))


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    net, _, _ = trained()
    mm.save(net, tmp_path / "gpt.safetensors")
    tokens = counting(3, 6)
    torch.testing.assert_close(mm.load(tmp_path / "gpt.safetensors")(tokens), net(tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, r"GPT\(heads\) must divide width=16"),
        ({"heads": 4, "kv_heads": 3}, r"GPT\(kv_heads\) must divide heads=4"),
        ({"depth": 0}, r"GPT\(depth\) must be a positive whole number"),
        ({"heads": 0}, r"GPT\(heads\) must be a positive whole number"),
        ({"logit_scale": 0.0}, "must be finite and not 0"),
        ({"attention_scale": -1.0}, "scale"),
        ({"branch_scale": 0.0}, r"GPT\(branch_scale\) must be finite and not 0"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        small(**arguments)

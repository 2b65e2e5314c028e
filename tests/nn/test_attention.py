"""Heads and attention: their values, their constants, and the points that attain them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.composition.sizes import slope
from modular_manifolds.errors import ArgumentError, SpaceError
from modular_manifolds.testing import Sample, check_module

D = 4


def heads(count: int = 2, **arguments: Any) -> mm.Heads:
    return mm.Heads(8, count, D, **arguments)


def attention(*, kv_heads: int = 2, scale: float = 1.0) -> mm.Module:
    """A whole attention layer without its output projection."""
    sides = mm.Parallel(
        query=heads() >> mm.Rotary(D),
        key=heads(kv_heads) >> mm.Rotary(D),
        value=heads(kv_heads),
    )
    return (1 / 3) * (sides >> mm.CausalAttention(D, scale=scale) >> mm.MergeHeads(2, D))


MODULES = {
    "heads": heads,
    "heads in the spectral norm": lambda: heads(norm=mm.Spectral(), manifold=mm.Stiefel()),
    "merge": lambda: mm.MergeHeads(2, D),
    "rotary": lambda: mm.Rotary(D),
    "attention": lambda: mm.CausalAttention(D),
    "sharp attention": lambda: mm.CausalAttention(D, scale=3.0),
    "typical attention": lambda: mm.CausalAttention(D, scale=3.0, typical=0.5),
    "layer": attention,
    "grouped layer": lambda: attention(kv_heads=1, scale=0.5),
}


@pytest.mark.parametrize(
    "name",
    mostly_long(
        MODULES,
        usual=lambda name: (
            name not in ("sharp attention", "typical attention", "layer", "grouped layer")
        ),
    ),
)
def test_the_laws_hold(name: str) -> None:
    for dtype in cases.DTYPES:
        module = MODULES[name]()
        with cases.Trying(dtype):
            check_module(
                cases.in_double(module) if dtype is torch.float64 else module, Sample((8,), dtype)
            )


def plain(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Causal attention, one position after another."""
    found = torch.zeros_like(query)
    groups = query.shape[-3] // key.shape[-3]
    for h in range(query.shape[-3]):
        for i in range(query.shape[-2]):
            k, v = (x[..., h // groups, : i + 1, :] for x in (key, value))
            logits = scale * torch.einsum("...d,...jd->...j", query[..., h, i, :], k) / D
            found[..., h, i, :] = torch.einsum("...j,...jd->...d", logits.softmax(-1), v)
    return found


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_what_the_formula_says(kv_heads: int) -> None:
    query = torch.randn(3, 4, 7, D, dtype=torch.float64)
    key, value = torch.randn(2, 3, kv_heads, 7, D, dtype=torch.float64)
    found = mm.CausalAttention(D, scale=2.5)((query, key, value))
    torch.testing.assert_close(found, plain(query, key, value, 2.5))


def test_heads_are_one_matrix_each() -> None:
    atom = heads(3).double()
    x = torch.randn(5, 6, 8, dtype=torch.float64)
    expected = torch.einsum("hdf,bpf->bhpd", atom.weight, x)
    torch.testing.assert_close(atom(x), expected)
    torch.testing.assert_close(atom(x[0]), expected[0])
    merged = mm.MergeHeads(3, D)(expected)
    torch.testing.assert_close(merged, expected.permute(0, 2, 1, 3).reshape(5, 6, 3 * D))


def test_a_step_moves_every_head_by_its_share() -> None:
    net = mm.Series(
        heads=heads(3), merge=mm.MergeHeads(3, D), out=mm.Linear(12, 1, norm=mm.RMSOperator())
    )
    optimizer = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    before = {path: weight.detach().clone() for path, weight in net.named_parameters()}
    net(torch.randn(16, 5, 8)).square().mean().backward()
    optimizer.step()
    path, share = "heads.weight", mm.budget(net).shares["heads.weight"]
    after = dict(net.named_parameters())[path].detach()
    lengths = mm.RMSOperator().value(after - before[path])
    # Steps turn, so they end a little short of their length; each head takes one of its own.
    torch.testing.assert_close(lengths, torch.full((3,), 0.1 * share), rtol=0.05, atol=0)
    assert net.modular_norm.value({p: w.detach() for p, w in net.named_parameters()}) > 0
    assert all(row.residual < 1e-5 for row in mm.conditioning(net).rows)


def test_a_stack_has_the_status_of_its_worst_matrix() -> None:
    atom = heads(3)
    optimizer = mm.SteepestDescent(atom, lr=0.1)
    atom.weight.grad = torch.randn_like(atom.weight)
    optimizer.step()
    found = optimizer.diagnoses["weight"]
    assert found.gap.shape == (3,)
    assert found.status is mm.Status.CONVERGED
    assert replace(found, tolerance=1e-30).status is (mm.Status.NOT_CONVERGED)


def test_equal_stacks_are_stepped_in_one_batch_as_alone() -> None:
    torch.manual_seed(0)
    together = mm.Parallel(heads(), heads(), heads(1))
    apart = copy.deepcopy(together)
    x = torch.randn(4, 5, 8)
    for net in (together, apart):
        torch.stack([part.square().sum() for part in net(x)]).sum().backward()
    mm.SteepestDescent(together, lr=0.1).step()
    shares = mm.budget(apart).shares
    for name, part in apart.named_parameters():
        geometry = dict(apart.geometries())[name]
        assert part.grad is not None
        found = mm.steepest(geometry.manifold, geometry.norm, part.detach(), part.grad)
        landed = geometry.manifold.retract(part.detach(), 0.1 * shares[name] * found.direction)
        torch.testing.assert_close(dict(together.named_parameters())[name].detach(), landed)


def extreme(argument: str, r_q: float, r_k: float, r_v: float) -> tuple[list[Tensor], list[Tensor]]:
    """Queries, keys and values of one head at two positions, and moves of them of unit norm in one of them."""
    unit = torch.ones(D, dtype=torch.float64)
    zero = torch.zeros(2, D, dtype=torch.float64)
    both = torch.stack((unit, -unit))
    match argument:
        case "query":
            return [zero, r_k * both, r_v * both], [torch.stack((unit, unit)), zero, zero]
        case "key":
            return [r_q * torch.stack((unit, unit)), zero, r_v * both], [zero, both, zero]
        case _:
            return [zero, zero, zero], [zero, zero, torch.stack((unit, unit))]


@pytest.mark.parametrize("argument", ["query", "key", "value"])
@pytest.mark.parametrize(
    "radii", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0), (2.0, 0.5, 0.7), (0.3, 0.3, 0.3)]
)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_no_constant_of_attention_could_be_smaller(
    argument: str, radii: tuple[float, float, float], scale: float
) -> None:
    r_q, r_k, r_v = radii
    at, move = extreme(argument, *radii)
    bond = mm.CausalAttention(D, scale=scale)
    shaped = [[x.unsqueeze(0).unsqueeze(0) for x in each] for each in (at, move)]
    moved = torch.func.jvp(lambda *x: bond(x), tuple(shaped[0]), tuple(shaped[1]))[1]
    found = float(moved.square().mean(dim=-1).sqrt().amax())
    expected = {"query": scale * r_k * r_v, "key": scale * r_q * r_v, "value": 1.0}
    assert found == pytest.approx(expected[argument], rel=1e-12)
    assert bond.lipschitz_within(radii) == pytest.approx(max(expected.values()), rel=1e-12)


@given(
    radii=st.tuples(*[st.floats(0.1, 5.0)] * 3),
    scale=st.floats(0.1, 5.0),
    kv_heads=st.sampled_from([1, 2]),
    seed=st.integers(0, 10_000),
)
def test_the_slope_within_radii_holds(
    radii: tuple[float, float, float], scale: float, kv_heads: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(16, 2, 6, D), (16, kv_heads, 6, D), (16, kv_heads, 6, D)]
    at, move = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for _ in range(2)
    )

    def rms(x: Tensor) -> Tensor:
        return x.square().mean(dim=-1).sqrt()

    at = [r * x / rms(x).unsqueeze(-1) for r, x in zip(radii, at, strict=True)]
    bond = mm.CausalAttention(D, scale=scale)
    output, moved = torch.func.jvp(lambda *x: bond(x), tuple(at), tuple(move))[:2]
    sizes = sum(rms(x).flatten(1).amax(dim=1) for x in move)
    slack = 1 + 1e-12
    assert bool(
        (rms(moved).flatten(1).amax(dim=1) <= slack * bond.lipschitz_within(radii) * sizes).all()
    )
    assert float(rms(output).amax()) <= slack * bond.output_within(radii)


def test_without_a_radius_attention_has_no_bound_and_is_named() -> None:
    net = attention()
    report = mm.lipschitz(net)
    assert math.isinf(report.declared)
    assert (
        "module.1 (CausalAttention): its bound depends on the size of its input; pass radius="
        in str(report)
    )
    bounded = mm.lipschitz(net, radius=1.0)
    assert bounded.declared == pytest.approx(1.0)
    assert 0.05 < bounded.empirical <= bounded.certified <= bounded.declared * (1 + 1e-5)
    # The radius cubed, but for the value's own constant.
    assert mm.lipschitz(net, radius=3.0).declared == pytest.approx(9.0)


def test_sizes_of_a_tuple_do_not_add_up_in_attention() -> None:
    """Three branches of size 1 are no tuple of size 3: the bound is 1, not 9."""
    assert slope(attention().tree(), 1.0) == pytest.approx(1.0)
    last = mm.activations(attention()).rows[-1]
    assert last.output.declared == pytest.approx(1.0)
    assert mm.CausalAttention(D).lipschitz_within(3.0) == 9.0


def test_activations_of_sequences_stay_within_their_bounds() -> None:
    net = attention(kv_heads=1, scale=2.0)
    points = torch.randn(20, 6, 8)
    for row in mm.activations(net, points=points).rows:
        for size in (row.input, row.output, row.gradient):
            assert size.measured is not None
            assert 0 < size.measured <= size.certified * (1 + 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.Rotary(5), "must be even"),
        (lambda: mm.Rotary(4, base=1.0), "above 1"),
        (lambda: mm.CausalAttention(4, scale=0.0), "finite and positive"),
        (lambda: mm.CausalAttention(4, typical=math.inf), "finite and positive"),
        (lambda: mm.CausalAttention(0), "positive whole"),
        (lambda: mm.Heads(8, 0, 4), "positive whole"),
        (lambda: mm.MergeHeads(2, True), "positive whole"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SpaceError):
        mm.Series(mm.Linear(8, 4), mm.Rotary(4))
    with pytest.raises(SpaceError):
        mm.Series(mm.Parallel(heads(), heads()), mm.CausalAttention(D))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=cases.name)
def test_a_layer_moves_between_dtypes(dtype: torch.dtype) -> None:
    net = attention().to(dtype)
    assert net(torch.randn(2, 5, 8).to(dtype)).dtype is dtype


def test_a_layer_is_saved_and_loaded(tmp_path: Any) -> None:
    net = attention(kv_heads=1, scale=2.0)
    mm.save(net, tmp_path / "net.safetensors")
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(mm.load(tmp_path / "net.safetensors")(x), net(x))
    assert mm.NetworkSpec.from_module(net).build().tree() == net.tree()

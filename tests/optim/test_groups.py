"""The optimiser on parameters and groups, as any optimiser of torch takes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ModularManifoldsError

MUON: dict[str, Any] = {"manifold": mm.Euclidean(), "norm": mm.Spectral()}


def matrix(*shape: int, seed: int = 0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(*shape, generator=generator))


def give_gradients(*parameters: nn.Parameter, seed: int = 0) -> None:
    for place, each in enumerate(parameters):
        generator = torch.Generator().manual_seed(seed * 100 + place)
        each.grad = torch.randn(each.shape, generator=generator)


def test_groups_step_as_a_declared_network_with_the_same_shares() -> None:
    net = mm.Linear(6, 4, manifold=mm.Stiefel()) >> mm.Linear(4, 3, manifold=mm.Stiefel(), mass=2.0)
    twin = copy.deepcopy(net)
    shares = list(net.budget().shares.values())
    ours = mm.SteepestDescent(net, 0.1, momentum=0.9)
    theirs = mm.SteepestDescent(
        [
            {"params": [pair], "manifold": mm.Stiefel(), "norm": mm.Spectral(), "share": share}
            for pair, share in zip(twin.named_parameters(), shares, strict=True)
        ],
        0.1,
        momentum=0.9,
    )
    for seed in range(3):
        give_gradients(*net.parameters(), seed=seed)
        give_gradients(*twin.parameters(), seed=seed)
        ours.step()
        theirs.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_parameters_without_names_are_called_after_their_places() -> None:
    opt = mm.SteepestDescent([{"params": [matrix(3, 2), matrix(2, 2)], **MUON}], 0.1)
    assert opt.param_groups[0]["param_names"] == ["param_groups[0][0]", "param_groups[0][1]"]
    state = opt.state_dict()
    opt.load_state_dict(state)


def test_a_group_may_be_added_later() -> None:
    first, second, third = matrix(3, 2), matrix(4, 4), matrix(3)
    opt = mm.SteepestDescent([{"params": [first], **MUON}], 0.1, momentum=0.9)
    opt.add_param_group({"params": [("late", second)], **MUON, "share": 0.5})
    opt.add_param_group({"params": [third], "optimizer": "adamw", "lr": 0.1})
    before = [each.detach().clone() for each in (first, second, third)]
    give_gradients(first, second, third)
    opt.step()
    for each, old in zip((first, second, third), before, strict=True):
        assert not torch.equal(each, old)
    moved = torch.linalg.matrix_norm((second - before[1]).detach(), 2)
    assert float(moved) == pytest.approx(0.05, rel=2e-2)


REFUSED: list[tuple[str, Any, str]] = [
    ("no geometry", [matrix(3, 2)], "must have a manifold"),
    ("no norm", [{"params": [matrix(3, 2)], "manifold": mm.Euclidean()}], "must have a norm"),
    ("a class", [{"params": [matrix(3, 2)], **MUON, "manifold": mm.Euclidean}], "must have a man"),
    ("no pair", [{"params": [matrix(3, 2)], "manifold": mm.Stiefel(), "norm": mm.Max()}], "pair"),
    ("an empty list", [], "empty list"),
    ("a used generator", [{"params": iter([]), **MUON}], "empty after its first use"),
    ("a set", {matrix(3, 2)}, "ordered list"),
    ("a set of params", [{"params": {matrix(3, 2)}, **MUON}], "ordered list"),
    ("no tensors", [{"params": ["weight"], **MUON}], "must hold tensors"),
    ("no params", [dict(MUON)], "no params"),
    ("a kernel", [{"params": [matrix(3, 2, 5, 5)], **MUON}], "split"),
    ("off its manifold", [{"params": [matrix(3, 2)], "manifold": mm.Stiefel(), "norm": mm.Spectral()}], "off it"),
    ("no rate", [{"params": [matrix(3)], "optimizer": "adamw"}], "needs its own lr"),
    ("another optimiser", [{"params": [matrix(3)], "optimizer": "lion", "lr": 1.0}], "must be 'adamw'"),
    ("both", [{"params": [matrix(3)], "optimizer": "adamw", "lr": 1.0, **MUON}], "has no geometry"),
    ("betas", [{"params": [matrix(3)], "optimizer": "adamw", "lr": 1.0, "betas": (0.9, 1.0)}], "betas"),
    ("share twice", [{"params": [matrix(3, 2)], **MUON, "share": 1.0, "shares": [1.0]}], "share"),
    ("a share below 0", [{"params": [matrix(3, 2)], **MUON, "share": -1.0}], "at least 0"),
    ("one name twice", [{"params": [("a", matrix(3, 2)), ("b", matrix(3, 2))], **MUON}, {"params": [("a", matrix(2, 2))], **MUON}], "two groups"),
    ("no values", [{"params": [nn.Parameter(torch.empty(3, 2, device="meta"))], **MUON}], "meta device"),
    ("names of others", [{"params": [matrix(3, 2)], "param_names": ["a", "b"], **MUON}], "a name for each"),
    ("a number", 3, "must be a network"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "words"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_mistakes_are_refused_in_one_line(params: Any, words: str) -> None:
    with pytest.raises(ModularManifoldsError, match=words) as caught:
        mm.SteepestDescent(params, 0.1)
    assert "\n" not in str(caught.value)


def test_a_model_that_was_not_declared_is_sent_to_adapt() -> None:
    with pytest.raises(ArgumentError, match=r"mm\.adapt\(model\)"):
        mm.SteepestDescent(nn.Linear(3, 3), 0.1)  # pyright: ignore[reportArgumentType]


class TestNamed:
    """The classes that are named after known methods."""

    @pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
    @pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
    def test_muon_steps_as_torchs_does(self, shape: tuple[int, int], scale: Any) -> None:
        ours, theirs = matrix(*shape), matrix(*shape)
        how: dict[str, Any] = {"lr": 0.02, "momentum": 0.95, "adjust_lr_fn": scale}
        opt = mm.optim.Muon([ours], weight_decay=0.1, **how)
        exact = {"ns_steps": 30, "ns_coefficients": (1.875, -1.25, 0.375)}
        reference = torch.optim.Muon([theirs], weight_decay=0.1, **how, **exact)
        for seed in range(3):
            give_gradients(ours, seed=seed)
            give_gradients(theirs, seed=seed)
            opt.step()
            reference.step()
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)

    def test_manifold_muon_moves_fresh_weights_to_the_manifold_and_keeps_them_there(self) -> None:
        weight = matrix(8, 5)
        nearest = mm.Stiefel(2.0).project(weight.detach())
        opt = mm.optim.ManifoldMuon([weight], radius=2.0)
        torch.testing.assert_close(weight.detach(), nearest)
        for seed in range(3):
            give_gradients(weight, seed=seed)
            opt.step()
        assert float(mm.Stiefel(2.0).residual(weight.detach())) < 1e-5

    @pytest.mark.parametrize("method", [mm.optim.HypersphericalDescent, mm.optim.MuonSphere])
    def test_spheres_go_through_the_weights_as_they_are(self, method: Any) -> None:
        first, second = matrix(8, 5), matrix(4, 3, seed=1)
        before = [each.detach().clone() for each in (first, second)]
        opt = method([first, second], lr=0.1)
        assert torch.equal(first, before[0])
        give_gradients(first, second)
        opt.step()
        for each, old in zip((first, second), before, strict=True):
            assert float(each.detach().norm()) == pytest.approx(float(old.norm()), rel=1e-5)

    def test_sign_descent_and_normalised_descent_are_what_they_say(self) -> None:
        for method, length in (
            (mm.optim.SignDescent, lambda x: x.abs().max()),
            (mm.optim.NormalizedSGD, torch.linalg.vector_norm),
        ):
            weight, bias = matrix(8, 5), matrix(3)
            before = weight.detach().clone(), bias.detach().clone()
            opt = method([weight, bias], lr=0.1)
            give_gradients(weight, bias)
            opt.step()
            for each, old in zip((weight, bias), before, strict=True):
                assert float(length(each.detach() - old)) == pytest.approx(0.1, rel=1e-5)

    @pytest.mark.parametrize("method", [mm.optim.Muon, mm.optim.ManifoldMuon])
    def test_vectors_are_refused_and_sent_to_adamw(self, method: Any) -> None:
        with pytest.raises(ArgumentError, match="adamw"):
            method([matrix(8, 5), matrix(5)])
        opt = method(
            [{"params": [matrix(8, 5)]}, {"params": [matrix(5)], "optimizer": "adamw", "lr": 3e-4}]
        )
        assert len(opt.param_groups) == 2
        assert torch.optim.lr_scheduler.StepLR(opt, 1).get_last_lr()[1] == 3e-4

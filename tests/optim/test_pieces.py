"""Logical matrices inside a stored tensor: they are stepped as weights of their own would be."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from fakes import NoWaiting, fake_device, move_to_fake_device
from torch import Tensor, nn
from weights import EVERY_PAIR_MOSTLY_LONG

import modular_manifolds as mm
from modular_manifolds.composition.budget import Budget, BudgetRow
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.piece import Piece
from modular_manifolds.optim import on_device, settings, whole

QKV = tuple(
    Piece(name, (4, 3, 2, 5), ((1, place, 1),), (2,), (1, 3), (0,))
    for place, name in enumerate("qkv")
)
"""A tensor stored as (in, out), whose outputs are q, k and v of two heads of 5."""


class Fused:
    """One stored tensor of three stacks, a convolution, a vector of AdamW, and a whole matrix."""

    def __init__(self, manifold: mm.Manifold, norm: mm.Norm) -> None:
        self.geometry = mm.Geometry(manifold, norm)
        conv = Piece("", (6, 2, 2, 2), (), (), (0,), (1, 2, 3))
        self.pieces_by_name = {f"qkv[{each.name}]": ("qkv", each) for each in QKV}
        self.pieces_by_name["conv"] = ("conv", conv)
        shapes = {name: piece.shape for name, (_, piece) in self.pieces_by_name.items()}
        self.shapes = {**shapes, "whole": (5, 3)}
        self.parameters = {
            "qkv": nn.Parameter(torch.zeros(4, 30)),
            "conv": nn.Parameter(torch.zeros(6, 2, 2, 2).to(memory_format=torch.channels_last)),
            "whole": nn.Parameter(torch.zeros(5, 3)),
            "bias": nn.Parameter(torch.ones(3)),
        }
        with torch.no_grad():
            for name, shape in self.shapes.items():
                self.write_(name, manifold.random(shape))

    def write_(self, name: str, values: Tensor) -> None:
        path, piece = self.pieces_by_name.get(name, (name, None))
        if piece is None:
            self.parameters[path].copy_(values)
        else:
            piece.write_(self.parameters[path], values)

    def read(self, name: str, of: Mapping[str, Tensor] | None = None) -> Tensor:
        path, piece = self.pieces_by_name.get(name, (name, None))
        stored = (of or self.parameters)[path].detach()
        return stored if piece is None else piece.read(stored)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.parameters.items()

    def geometries(self) -> Iterator[tuple[str, mm.Geometry]]:
        for name in self.shapes:
            yield name, self.geometry

    def budget(self, lr: float = 1.0) -> Budget:
        rows = [
            BudgetRow(name, "", "", 1.0, 1.0, 1.0, 1.0, 0.1 * place, 0.1 * place * lr, 1.0)
            for place, name in enumerate(self.shapes, start=1)
        ]
        return Budget(lr, tuple(rows))

    def pieces(self) -> Mapping[str, tuple[str, Piece]]:
        return self.pieces_by_name

    def fallbacks(self) -> Mapping[str, Mapping[str, Any]]:
        return {"bias": {"optimizer": "adamw", "lr": 0.01}}


def separate(
    net: Fused, lr: float, **how: Any
) -> tuple[dict[str, nn.Parameter], mm.SteepestDescent]:
    """Every logical matrix of `net` as a parameter of its own, with its share."""
    shares = net.budget().shares
    own = {name: nn.Parameter(net.read(name).clone()) for name in net.shapes}
    stack = {"split": _Stack()}
    groups: list[dict[str, Any]] = [
        {
            "params": [(name, parameter)],
            "manifold": net.geometry.manifold,
            "norm": net.geometry.norm,
            "share": shares[name],
            **(stack if parameter.dim() > 2 else {}),
        }
        for name, parameter in own.items()
    ]
    return own, mm.SteepestDescent(groups, lr, **how)


class _Stack:
    """A split of a stack of matrices into itself."""

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        batch = tuple(range(len(shape) - 2))
        return (Piece("", shape, (), batch, (len(shape) - 2,), (len(shape) - 1,)),)


def give_gradients(net: Fused, own: Mapping[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    gradients = {path: each.grad for path, each in net.parameters.items() if each.grad is not None}
    for name, parameter in own.items():
        parameter.grad = net.read(name, gradients).clone()


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize("on_accelerator", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_go_where_separate_weights_go(
    manifold: type[mm.Manifold],
    norm: type[mm.Norm],
    dtype: torch.dtype,
    on_accelerator: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if on_accelerator:
        for module in (whole, on_device, settings):
            monkeypatch.setattr(module, "readable", lambda _: False)
    torch.manual_seed(0)
    net = Fused(manifold(), norm())
    for name in ("qkv", "conv", "whole"):
        net.parameters[name].data = net.parameters[name].data.to(dtype)
    how: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
    if dtype is torch.float32:
        how["noise_damping"] = how["tangent_momentum"] = True
    else:
        monkeypatch.setattr("modular_manifolds.optim.params.MAX_OFF_MANIFOLD_RELATIVE", 0.1)
    own, theirs = separate(net, 0.1, **how)
    ours = mm.SteepestDescent(net, 0.1, **how)
    for seed in range(3):
        give_gradients(net, own, seed)
        ours.step()
        theirs.step()
    # These solve another stack in another order, to their tolerance.
    iterative = manifold in (mm.Stiefel, mm.SpectralSphere)
    close = 1e-2 if iterative or dtype is torch.bfloat16 else 1e-5
    for name, parameter in own.items():
        torch.testing.assert_close(net.read(name), parameter.detach(), atol=close, rtol=close)
    assert net.parameters["conv"].is_contiguous(memory_format=torch.channels_last)


def optimiser(net: Fused, **how: Any) -> mm.SteepestDescent:
    return mm.SteepestDescent(net, 0.1, momentum=0.9, **how)


def test_groups_say_where_pieces_lie_and_what_each_takes() -> None:
    opt = optimiser(Fused(mm.Stiefel(), mm.Spectral()))
    group, other = opt.param_groups
    assert group["param_names"] == ["qkv", "conv", "whole"]
    assert group["shares"] == [pytest.approx([0.1, 0.2, 0.3]), pytest.approx(0.4), 0.5]
    assert [each and len(each) for each in group["pieces"]] == [3, 1, None]
    assert (other["optimizer"], other["param_names"], other["lr"]) == ("adamw", ["bias"], 0.01)


@pytest.mark.parametrize("how", ["state dict", "copy", "pickle"])
def test_a_resumed_run_has_the_same_bits(how: str) -> None:
    torch.manual_seed(0)
    net = Fused(mm.SpectralSphere(), mm.Spectral())
    opt = optimiser(net, noise_damping=True)
    give_gradients(net, {}, 0)
    opt.step()
    if how == "state dict":
        twin = copy.deepcopy(net)
        other = optimiser(twin, noise_damping=True)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    else:
        both = net, opt
        twin, other = copy.deepcopy(both) if how == "copy" else pickle.loads(pickle.dumps(both))
    for seed in range(1, 4):
        give_gradients(net, {}, seed)
        give_gradients(twin, {}, seed)
        opt.step()
        other.step()
    for path, parameter in net.parameters.items():
        assert torch.equal(parameter, twin.parameters[path]), path
    assert not torch.equal(net.parameters["bias"], torch.ones(3))


def test_state_of_other_pieces_is_refused() -> None:
    opt = optimiser(Fused(mm.Stiefel(), mm.Spectral()))
    state = opt.state_dict()
    state["param_groups"][0]["pieces"][0].pop()
    with pytest.raises(ArgumentError, match="must be for the pieces"):
        optimiser(Fused(mm.Stiefel(), mm.Spectral())).load_state_dict(state)


def test_a_gradient_that_is_not_finite_moves_nothing_of_either_optimiser() -> None:
    for broken in ("qkv", "bias"):
        net = Fused(mm.Stiefel(), mm.Spectral())
        opt = optimiser(net)
        give_gradients(net, {}, 0)
        gradient = net.parameters[broken].grad
        assert gradient is not None
        gradient.view(-1)[0] = torch.nan
        before = {path: each.detach().clone() for path, each in net.parameters.items()}
        with pytest.raises(mm.errors.NonFiniteError, match=broken):
            opt.step()
        for path, parameter in net.parameters.items():
            assert torch.equal(parameter, before[path])


def test_on_an_accelerator_a_broken_step_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (whole, on_device, settings):
        monkeypatch.setattr(module, "readable", lambda _: False)
    net = Fused(mm.Stiefel(), mm.Spectral())
    opt = optimiser(net)
    give_gradients(net, {}, 0)
    opt.step()
    bias = net.parameters["bias"]
    assert bias.grad is not None
    bias.grad[0] = torch.inf
    before = {path: each.detach().clone() for path, each in net.parameters.items()}
    moments = opt.state[bias]["exp_avg"].clone()
    opt.step()
    for path, parameter in net.parameters.items():
        assert torch.equal(parameter, before[path])
    assert torch.equal(opt.state[bias]["exp_avg"], moments)
    with pytest.raises(mm.errors.NonFiniteError, match="bias"):
        opt.check()


def test_pieces_read_no_number_on_an_accelerator() -> None:
    opt = optimiser(Fused(mm.Stiefel(), mm.Spectral()), nesterov=True)
    with fake_device(), NoWaiting():
        move_to_fake_device(opt, torch.float32, None)
        for _ in range(2):
            opt.step()


def test_a_weight_of_adamw_steps_as_torchs_does() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        ours, theirs = (nn.Parameter(torch.randn(5, 3).to(dtype)) for _ in range(2))
        theirs.data = ours.data.clone()
        # torch's own moments are as coarse as the weight; ours are not.
        master = nn.Parameter(theirs.detach().float())
        settings_: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1}
        opt = mm.SteepestDescent([{"params": [ours], "optimizer": "adamw", **settings_}], 1.0)
        reference = torch.optim.AdamW([master], eps=1e-8, **settings_)
        for _ in range(5):
            ours.grad = torch.randn(5, 3).to(dtype)
            master.grad = ours.grad.float()
            opt.step()
            reference.step()
        assert torch.equal(ours, master.detach().to(dtype))


def test_schedulers_move_every_group() -> None:
    net = Fused(mm.Stiefel(), mm.Spectral())
    opt = optimiser(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 0.5)
    assert [group["lr"] for group in opt.param_groups] == [0.05, 0.005]
    give_gradients(net, {}, 0)
    opt.step()
    schedule.step()


def test_a_captured_step_needs_gradients_of_adamws_weights_too() -> None:
    opt = optimiser(Fused(mm.Stiefel(), mm.Spectral()), capturable=True)
    assert all(isinstance(group["lr"], Tensor) for group in opt.param_groups)


@pytest.mark.long
def test_a_compiled_step_of_pieces_is_one_graph() -> None:
    torch.manual_seed(0)
    net = Fused(mm.Stiefel(), mm.Spectral())
    twin = copy.deepcopy(net)
    opts = [mm.SteepestDescent(each, torch.tensor(0.1), momentum=0.9) for each in (net, twin)]
    step = torch.compile(opts[0].step, fullgraph=True, backend="eager")
    for seed in range(3):
        give_gradients(net, {}, seed)
        give_gradients(twin, {}, seed)
        step()
        opts[1].step()
    for path, parameter in net.parameters.items():
        torch.testing.assert_close(parameter, twin.parameters[path], atol=1e-6, rtol=0)

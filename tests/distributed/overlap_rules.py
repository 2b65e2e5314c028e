"""Checks of rounds of early messages: changes after the backward pass, gradients that are given up, missing or not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from sharded_rules import everything, messages, perceptron
from sharding import placed_like
from torch import Tensor, nn
from trained import way_of

import modular_manifolds as mm
from modular_manifolds.optim.sharded import messages as layout

SMALL_MESSAGE_BYTES: Final = 1000


@contextmanager
def small_messages() -> Iterator[None]:
    """While inside, small networks have several messages."""
    usual, layout.MESSAGE_BYTES = layout.MESSAGE_BYTES, SMALL_MESSAGE_BYTES
    try:
        yield
    finally:
        layout.MESSAGE_BYTES = usual


def backward_of_shards(
    net: nn.Module,
    seed: int,
    *,
    left_out: Iterable[int] = (),
    resting: Iterable[int] = (),
    reverse: bool = False,
) -> None:
    """Random gradients, zero for some weights, by a backward pass without a collective of its own."""
    generator = torch.Generator().manual_seed(seed)
    terms: list[Tensor] = []
    for number, each in enumerate(net.parameters()):
        gradient = torch.randn(each.shape, generator=generator) * (number not in resting)
        shard: Any = placed_like(each, gradient.to(each.dtype))
        if number not in left_out and each.requires_grad:
            local: Tensor = each.to_local()  # pyright: ignore[reportAttributeAccessIssue]
            terms.append((local * shard.to_local()).sum())
    total = torch.zeros(())
    for each in reversed(terms) if reverse else terms:
        total = total + each
    total.backward()


def both(run: Callable[..., Any], *rest: Any) -> Any:
    """The results without overlap and with it."""
    with small_messages():
        return run(False, *rest), run(True, *rest)


def counts_of(opt: mm.SteepestDescent) -> Any:
    placement: Any = opt.placement
    return placement.overlap


def first_gradient(net: nn.Module) -> Any:
    return next(net.parameters()).grad


def replace_gradient(net: nn.Module) -> None:
    first = next(net.parameters())
    assert first.grad is not None
    first.grad = first.grad * 2


def change_momentum(opt: mm.SteepestDescent) -> None:
    opt.param_groups[0]["momentum"] = 0.5


@torch.no_grad()
def change_weight(net: nn.Module) -> None:
    next(net.parameters()).mul_(1.01)


CHANGES: Final[dict[str, Callable[[nn.Module, mm.SteepestDescent], Any]]] = {
    "clipped": lambda net, _: nn.utils.clip_grad_norm_(net.parameters(), 0.1),
    "clipped by data": lambda net, _: first_gradient(net).to_local().data.mul_(0.5),
    "replaced": lambda net, _: replace_gradient(net),
    "in one process": lambda net, _: first_gradient(net).mul_(1 + dist.get_rank()),
    "second backward pass": lambda net, _: backward_of_shards(net, 7),
    "given up by the model": lambda net, _: (net.zero_grad(), backward_of_shards(net, 7)),
    "weight": lambda net, _: change_weight(net),
    "momentum": lambda _, opt: change_momentum(opt),
}


USUAL_CHANGES: Final = ("clipped", "in one process", "second backward pass", "momentum")
"""Those of a plain run."""


def check_changed() -> Any:
    """Some of the changes."""
    found = {f"{name}, host": _changed(CHANGES[name], "host") for name in USUAL_CHANGES[1:]}
    return {**found, "clipped, device": _changed(CHANGES["clipped"], "device")}


def check_more_changed() -> Any:
    """The other changes, and clipping on the host's way."""
    others = CHANGES.keys() - USUAL_CHANGES[1:]
    return {f"{name}, host": _changed(CHANGES[name], "host") for name in sorted(others)}


def _changed(change: Callable[[nn.Module, mm.SteepestDescent], Any], way: str) -> Any:
    """A change after the messages have left: the step is refused everywhere, changes nothing, and the next one is taken."""
    with small_messages(), way_of(way):
        net, opt = perceptron(overlap=True)
        backward_of_shards(net, 0)
        opt.step()
        net.zero_grad()
        backward_of_shards(net, 1)
        change(net, opt)
        before = everything(net, opt)
        said: dict[str, str] = {}
        with messages(said, "step"):
            opt.step()
            opt.check()
        rested = all(map(torch.equal, before, everything(net, opt)))
        net.zero_grad()
        backward_of_shards(net, 2)
        with messages(said, "next"):
            opt.step()
            opt.check()
        moved = not torch.equal(before[0], everything(net, opt)[0])
        return said, rested, moved


Round = Callable[[nn.Module, mm.SteepestDescent], Any]


def toggle_damping(opt: mm.SteepestDescent) -> None:
    for group in opt.param_groups:
        group["noise_damping"] = not group["noise_damping"]


def freeze(net: nn.Module, opt: mm.SteepestDescent) -> None:
    first, second, *_ = net.parameters()
    first.requires_grad_(False)
    for group in opt.param_groups:
        for place, each in enumerate(group["params"]):
            if each is second:
                group["shares"][place] = 0.0


def nothing(net: nn.Module, opt: mm.SteepestDescent) -> None:
    del net, opt


def one_more_pass(net: nn.Module, opt: mm.SteepestDescent) -> None:
    del opt
    backward_of_shards(net, 7)


ROUNDS: Final[dict[str, tuple[int, Round, Round]]] = {
    "given up": (1, lambda net, opt: (backward_of_shards(net, 7), opt.zero_grad()), nothing),
    "accumulated": (2, one_more_pass, nothing),
    "fewer passes": (3, one_more_pass, nothing),
    "other settings": (1, lambda _, opt: toggle_damping(opt), nothing),
    "other settings after": (1, nothing, lambda _, opt: toggle_damping(opt)),
    "frozen": (1, freeze, nothing),
}
"""For each case, the number of backward passes, and what happens before and after the last one."""


def check_rounds() -> Any:
    found = {name: both(with_rounds, *each) for name, each in ROUNDS.items()}
    return {**found, "missing everywhere": both(with_rounds, 1, nothing, nothing, [0])}


def with_rounds(
    overlap: bool, passes: int, before: Round, after: Round, left_out: Iterable[int] = ()
) -> Any:
    net, opt = perceptron(overlap=passes if overlap else False)
    early: list[Any] = []
    for step in range(3):
        before(net, opt)
        backward_of_shards(net, step, left_out=left_out)
        after(net, opt)
        opt.step()
        opt.zero_grad()
        early.append(counts_of(opt) and counts_of(opt)[1])
    return everything(net, opt), early


def check_missing() -> Any:
    """One process lacks a gradient, or gives its gradients up alone; both come back into step."""
    found: dict[str, str] = {}
    with small_messages():
        net, opt = perceptron(overlap=True)
        own = dist.get_rank()
        backward_of_shards(net, 0, left_out=[1] if own else [])
        with messages(found, "lacks"):
            opt.step()
        opt.zero_grad()
        backward_of_shards(net, 1)
        with messages(found, "next"):
            opt.step()
        for step in range(2):
            opt.zero_grad()
            backward_of_shards(net, 2 + step)
            # The first process alone, and then the second.
            if own == step:
                opt.zero_grad()
                backward_of_shards(net, 2 + step)
            with messages(found, f"gave up {step}"):
                opt.step()
    return found, everything(net, opt)


def check_nonfinite() -> Any:
    """One process has a NaN in its own shard: nothing changes, and the steps after it are those without overlap."""
    return {way: both(nonfinite, way, how) for way, how in (("host", "raise"), ("device", "skip"))}


def nonfinite(overlap: bool, way: str, how: str) -> Any:
    net, opt = perceptron(on_nonfinite=how, overlap=overlap)
    said: dict[str, str] = {}
    rested = False
    for step in range(3):
        net.zero_grad()
        before = everything(net, opt)
        with way_of(way):
            if step == 1 and dist.get_rank() == 1:
                second = list(net.parameters())[1]
                handle = second.register_hook(lambda gradient: gradient * float("nan"))
                backward_of_shards(net, step)
                handle.remove()
            else:
                backward_of_shards(net, step)
            with messages(said, str(step)):
                opt.step()
                opt.check()
        rested = rested or all(map(torch.equal, before, everything(net, opt)))
    return everything(net, opt), said, rested, opt.skipped, counts_of(opt)

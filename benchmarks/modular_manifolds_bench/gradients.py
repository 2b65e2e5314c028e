"""Real training problems: weights, gradients and optimiser state, recorded while a network trains."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.training import load_data
from modular_manifolds.training.split import Split

MOMENTUM = 0.95
BATCH = 1024
SIDE = 32
SHIFT = 4
CIFAR10 = "CIFAR-10, 3×32×32"
ENLARGED = (
    "the bundled digits, enlarged from 8×8 to 3×32×32 by interpolation and shifted "
    "(--data-path takes CIFAR-10)"
)


@dataclass(frozen=True)
class Moment:
    """Weights just before a step of training, their gradients, and the state the step started from.

    `share` is the part of the learning rate `lr` that each weight had.
    """

    weights: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    states: tuple[dict[str, Any], ...]
    lr: float
    share: float


@dataclass(frozen=True)
class Problem:
    """Weights of one shape (out, in) at a few moments of a training."""

    name: str
    shape: tuple[int, int]
    moments: tuple[Moment, ...]

    def at(self, number: int) -> Moment:
        """The moments in turn."""
        return self.moments[number % len(self.moments)]


def images_of_cifar10(folder: Path) -> Split:
    """CIFAR-10 from Parquet files, as `modular-manifolds train --data cifar10` reads them."""
    return load_data("cifar10", folder).train


def enlarged_digits() -> Split:
    """The bundled digits of 8×8 pixels, bilinearly enlarged to 32×32, three channels of one digit.

    Each channel has its own shift of up to four pixels. Without shifts the images would span at most 64 dimensions and
    gradients would have rank 64, while those of photographs have full rank.
    """
    digits = digits_alone()
    count = len(digits.images)
    small = digits.images.reshape(-1, 1, 8, 8)
    large = functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(-SHIFT, SHIFT + 1, (2, count, 3, 1), generator=generator)
    down, right = ((torch.arange(SIDE) + each).clamp(0, SIDE - 1) for each in shifts)
    channels = large.expand(-1, 3, -1, -1)
    channels = channels.gather(2, down.unsqueeze(-1).expand(-1, -1, -1, SIDE))
    channels = channels.gather(3, right.unsqueeze(-2).expand(-1, -1, SIDE, -1))
    return Split(channels.reshape(count, -1).contiguous(), digits.labels)


def digits_alone() -> Split:
    """The bundled digits with 64 pixels."""
    return load_data("digits").train


def perceptron(sizes: Sequence[int], bond: Callable[[], mm.Module] = mm.ReLU) -> mm.Module:
    """A multi-layer perceptron with every weight on the Stiefel manifold, in the spectral norm."""
    layers: list[mm.Module] = []
    for into, out in itertools.pairwise(sizes):
        if layers:
            layers.append(bond())
        layers.append(mm.Linear(into, out, manifold=mm.Stiefel(), norm=mm.Spectral()))
    return reduce(lambda f, g: f >> g, layers)


def training(
    net: mm.Module, images: Split, *, steps: int, lr: float, share: float, batch: int = BATCH
) -> Iterator[tuple[int, mm.SteepestDescent]]:
    """Train `net` by manifold Muon; stops just before each step, when the gradients are there.

    Nesterov momentum 0.95, the learning rate falling linearly, cross entropy of the first outputs, one
    for each class. `share` is every weight's part of `lr`.
    """
    optimizer = mm.SteepestDescent(net, lr=lr, momentum=MOMENTUM, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    classes = int(images.labels.max()) + 1
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"], group["shares"] = lr * (1 - step / steps), [share] * len(group["params"])
        chosen = torch.randperm(len(images.labels), generator=generator)[:batch]
        outputs = net(images.images[chosen])[:, :classes]
        optimizer.zero_grad()
        functional.cross_entropy(outputs, images.labels[chosen]).backward()
        yield step, optimizer
        optimizer.step()


def record(
    net: mm.Module,
    images: Split,
    *,
    steps: int,
    at: Sequence[int],
    lr: float,
    share: float,
    batch: int = BATCH,
    watch: Callable[[str], None] = lambda _: None,
) -> list[tuple[str, Moment]]:
    """Train `net`, and record every weight's Moment at the steps `at`, counted from 0; stop at the last.

    `steps` is the length of the training, over which the learning rate falls.

    Returns:
        Pairs of a weight's path and its Moment, step by step.
    """
    found: list[tuple[str, Moment]] = []
    for step, optimizer in training(net, images, steps=steps, lr=lr, share=share, batch=batch):
        watch(f"step {step + 1}/{steps}")
        if step not in at:
            continue
        for group in optimizer.param_groups:
            for name, weight in zip(group["param_names"], group["params"], strict=True):
                moment = Moment(
                    (weight.detach().clone(),),
                    (weight.grad.clone(),),
                    (copy.deepcopy(optimizer.state[weight]),),
                    group["lr"],
                    share,
                )
                found.append((name, moment))
        if step == max(at):
            break
    return found


def one_weight_each(found: Sequence[tuple[str, Moment]]) -> list[Problem]:
    """A problem for each weight of a recording, by its shape."""
    problems: list[Problem] = []
    for path in dict.fromkeys(path for path, _ in found):
        moments = tuple(moment for name, moment in found if name == path)
        out, into = moments[0].weights[0].shape
        problems.append(Problem(f"{out}×{into}", (out, into), moments))
    return problems


def all_weights(found: Sequence[tuple[str, Moment]], *, name: str) -> Problem:
    """One problem of all weights of a recording, which have one shape."""
    weights = len(dict.fromkeys(path for path, _ in found))
    moments = [moment for _, moment in found]
    stacks = [moments[i : i + weights] for i in range(0, len(moments), weights)]
    together = tuple(
        Moment(
            tuple(each.weights[0] for each in stack),
            tuple(each.gradients[0] for each in stack),
            tuple(each.states[0] for each in stack),
            stack[0].lr,
            stack[0].share,
        )
        for stack in stacks
    )
    out, into = together[0].weights[0].shape
    return Problem(name, (out, into), together)


def small_net(images: Split, watch: Callable[[str], None]) -> list[Problem]:
    """The weights of an MLP 3072-128-64-10 after 10, 20 and 30 of 40 steps."""
    net = _seeded((3072, 128, 64, 10), mm.ReLU)
    return one_weight_each(
        record(net, images, steps=40, at=(10, 20, 30), lr=0.1, share=1.0, watch=watch)
    )


def large_net(images: Split, watch: Callable[[str], None]) -> list[Problem]:
    """The two large weights of an MLP 3072-768-768-10, after 5, 7 and 9 of 12 steps."""
    net = _seeded((3072, 768, 768, 10), mm.ReLU)
    found = record(net, images, steps=12, at=(5, 7, 9), lr=0.1, share=1.0, watch=watch)
    return [each for each in one_weight_each(found) if each.shape[0] == 768]


def deep_net(watch: Callable[[str], None]) -> Problem:
    """64 square weights of 64×64 with absolute values between them, on the bundled digits."""
    net = _seeded((64,) * 65, mm.Abs)
    found = record(
        net, digits_alone(), steps=40, at=(10, 20, 30), lr=1.0, share=1 / 64, watch=watch
    )
    return all_weights(found, name="64 of 64×64")


def _seeded(sizes: Sequence[int], bond: Callable[[], mm.Module]) -> mm.Module:
    """The network from one seed, whatever the caller's generator; that is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return perceptron(sizes, bond)

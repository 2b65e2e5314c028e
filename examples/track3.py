"""The optimiser-only track of modded-nanogpt, track 3, with this library's optimisers in the place of Muon.

The track counts the steps until a fixed GPT reaches a validation loss of 3.28 on FineWeb, with fixed data and batches.
Optimiser, schedule and initial weights are free. The data is the track's own: `data/cached_fineweb10B.py` of
https://github.com/KellerJordan/modded-nanogpt downloads the shards. On one machine with 1, 2, 4 or 8 GPUs:

    torchrun --standalone --nproc-per-node=8 examples/track3.py --data fineweb10B --manifold stiefel --lr 1

Hidden matrices are on the manifold; with `--manifold none` they are free, as Muon's are. `--rest budget` puts all weights
under the one rate; `--rest adamw` steps the embedding, the head and the vectors by AdamW at the rates of the track's
baseline. Gradients are summed over the processes as in the track, and each matrix is solved by one process. Without a GPU
and without data the same loop runs small:

    python examples/track3.py --tiny
    torchrun --standalone --nproc-per-node=2 examples/track3.py --tiny
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from track3_model import GPT, Size, initialise_
from track3_tokens import batches, shards, write_synthetic

import modular_manifolds as mm

TARGET_LOSS: Final = 3.28
"""The validation loss that the track asks for, in nats a token."""

VALIDATION_INTERVAL: Final = 125
"""The steps between two validations."""

COOLDOWN_SHARE: Final = 0.7
"""The share of the steps in which the rate falls to zero, as in the track's baseline."""

MEASURED_WINDOWS: Final = 4
"""The windows on which responses are measured."""

MANIFOLDS: Final[dict[str, mm.Manifold]] = {
    "none": mm.Euclidean(),
    "stiefel": mm.Stiefel(),
    "spectral-ball": mm.SpectralBall(),
    "spectral-sphere": mm.SpectralSphere(),
    "sphere": mm.Sphere(),
}

TINY: Final = Size(
    vocabulary=48, depth=2, width=32, head=16, context=16, batch=32, micro=8, valid=32
)
TINY_STEPS: Final = 12
"""The number of steps of `--tiny`."""


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Args:
        rank: its number.
        count: the number of processes.
        device: its device.
    """

    rank: int
    count: int
    device: torch.device


@dataclass
class Run:
    """The course of a training: validation losses by step, and the first step at the target, if any."""

    losses: dict[int, float] = field(default_factory=dict)
    reached: int | None = None


def start_processes(folder: Path, *, on_cpu: bool) -> Processes:
    """Join the processes that torchrun started, or form a group of one."""
    device = torch.device("cpu")
    if not on_cpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "gloo" if on_cpu else "nccl"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(
            backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1
        )
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def rules_of(manifold: mm.Manifold, rest: str) -> list[mm.Rule | mm.Fallback]:
    """Hidden matrices on the manifold; other weights by the budget, or by AdamW with the track's rates."""

    def is_hidden(name: str, weight: nn.Parameter, module: nn.Module) -> bool:
        del module
        return name.startswith("blocks.") and weight.dim() == 2

    hidden = mm.Rule(is_hidden, manifold=manifold, norm=mm.RMSOperator())
    if rest == "budget":
        return [hidden, mm.Rule("*")]
    common: dict[str, Any] = {"betas": (0.8, 0.95), "eps": 1e-10}
    return [
        hidden,
        mm.Fallback("embed.weight", lr=0.3, **common),
        mm.Fallback("proj.weight", lr=1 / 320, **common),
        mm.Fallback("*", lr=0.01, **common),
    ]


def plan_of(
    model: nn.Module, rules: Sequence[mm.Rule | mm.Fallback], sample: Tensor | None, own: Processes
) -> mm.ModelPlan:
    """The first process adapts the model and measures; the others read its plan, so that all have the same numbers."""
    text: list[Any] = [None]
    plan = None
    if own.rank == 0:
        plan = mm.adapt(model, rules, example_inputs=sample, progress=False)
        text = [plan.to_json()]
    dist.broadcast_object_list(text, src=0)
    for weight in model.parameters():
        dist.broadcast(weight.detach(), src=0)
    return plan if plan is not None else mm.ModelPlan.from_json(text[0], model)


def stable_then_linear(steps: int) -> Callable[[int], float]:
    """A factor on every rate: 1 at first, then a line to zero."""
    return lambda step: min(1.0, (1 - min(step, steps) / steps) / COOLDOWN_SHARE)


@torch.no_grad()
def validate(model: nn.Module, windows: tuple[Tensor, Tensor], size: Size) -> float:
    """The loss over the validation windows of all processes, in nats a token."""
    model.eval()
    parts = zip(*(each.split(size.micro) for each in windows), strict=True)
    total = torch.stack([model(*part) for part in parts]).double().sum()
    dist.all_reduce(total)
    model.train()
    return float(total) / (size.valid * size.context)


def backward(model: nn.Module, windows: tuple[Tensor, Tensor], size: Size) -> None:
    """One batch in micro-batches: the gradient of the mean loss, summed over all processes."""
    model.zero_grad()
    for inputs, targets in zip(*(each.split(size.micro) for each in windows), strict=True):
        (model(inputs, targets) / (size.batch * size.context)).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        dist.all_reduce(weight.grad)


def train(given: argparse.Namespace, size: Size, folder: Path, own: Processes) -> Run:
    """Train from the seed, and say the validation loss at regular steps."""
    torch.manual_seed(given.seed)
    with own.device:
        model = GPT(size)
        initialise_(
            model,
            head_at_zero=given.rest == "adamw",
            projections_at_zero=given.manifold == "none",
        )

    def read(part: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        found = batches(
            shards(folder, part),
            tokens=count * size.context,
            context=size.context,
            rank=own.rank,
            processes=own.count,
        )
        return ((inputs.to(own.device), targets.to(own.device)) for inputs, targets in found)

    valid, training = next(read("val", size.valid)), read("train", size.batch)
    # The responses of a head at zero are zero, so there is nothing to measure.
    sample = next(read("train", size.batch))[0] if given.rest == "budget" else None
    rules = rules_of(MANIFOLDS[given.manifold], given.rest)
    plan = plan_of(model, rules, None if sample is None else sample[:MEASURED_WINDOWS], own)
    optimizer = mm.SteepestDescent(
        plan,
        given.lr,
        momentum=0.95,
        nesterov=True,
        weight_decay=given.weight_decay,
        owner=dist.group.WORLD or "auto",
    )
    schedule = LambdaLR(optimizer, stable_then_linear(given.steps))
    if own.device.type == "cuda":
        model.compile(dynamic=False)
    run, seconds, start = Run(), 0.0, time.perf_counter()
    for step in range(given.steps + 1):
        if step % VALIDATION_INTERVAL == 0 or step == given.steps:
            # Waits for the device, and raises the errors of earlier steps.
            optimizer.check()
            seconds += time.perf_counter() - start
            loss = run.losses[step] = validate(model, valid, size)
            if run.reached is None and loss <= given.target:
                run.reached = step
            say(given, own, f"step {step} of {given.steps}: loss {loss:.5f}, {seconds:.1f} s")
            start = time.perf_counter()
        if step < given.steps:
            backward(model, next(training), size)
            optimizer.step()
            schedule.step()
    reached = "not reached" if run.reached is None else f"reached at step {run.reached}"
    say(given, own, f"{given.manifold}, {given.rest}, lr {given.lr:g}: {given.target:g} {reached}")
    return run


def say(given: argparse.Namespace, own: Processes, line: str) -> None:
    """Print a line in the first process, and keep it in the log."""
    if own.rank == 0:
        print(line, flush=True)
        if given.log is not None:
            with given.log.open("a", encoding="utf-8") as log:
                log.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> Run:
    parser = argparse.ArgumentParser(description="The track of optimisers of modded-nanogpt.")
    parser.add_argument("--data", type=Path, help="a folder with *_train_*.bin and *_val_*.bin")
    parser.add_argument("--manifold", choices=MANIFOLDS, default="stiefel")
    parser.add_argument("--rest", choices=("budget", "adamw"), default="adamw")
    parser.add_argument(
        "--lr", type=float, default=1.0, help="the rate of all weights with a geometry"
    )
    parser.add_argument("--weight-decay", type=float, default=0.0, help="without a manifold")
    parser.add_argument("--steps", type=int, default=3250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=TARGET_LOSS)
    parser.add_argument("--log", type=Path, help="a file to which the lines are appended")
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    given = parser.parse_args(arguments)
    if given.data is None and not given.tiny:
        parser.error("--data is needed: a folder with the track's shards; or --tiny")
    size = TINY if given.tiny else Size()
    if given.tiny:
        given.steps = min(given.steps, TINY_STEPS)
    with tempfile.TemporaryDirectory() as temporary:
        own = start_processes(Path(temporary), on_cpu=given.tiny)
        try:
            if size.batch % (own.count * size.micro) or size.valid % (own.count * size.micro):
                parser.error(f"{own.count} processes must share {size.batch} windows")
            folder = given.data or Path(temporary)
            if given.data is None:
                write_synthetic(folder, vocabulary=size.vocabulary, tokens=20_000)
            return train(given, size, folder, own)
        finally:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()

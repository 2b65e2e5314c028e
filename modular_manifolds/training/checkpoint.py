"""Checkpoints: the state of a run in one file of tensors and JSON, from which it continues bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, CheckpointError
from modular_manifolds.nn import Module
from modular_manifolds.nn.sharded import whole
from modular_manifolds.specs import load
from modular_manifolds.specs.archive import read_archive, write_archive
from modular_manifolds.training.processes import ALONE, Processes
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.shared import load_whole_, placed_state

KIND: Final = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """Weights, optimiser and schedule after `step` steps.

    `tensors` holds `net.*`, `optimizer.<index>.<key>` and the state of torch's generator; `content` holds the JSON-able
    state of the optimiser and the schedule.
    """

    step: int
    tensors: dict[str, Tensor]
    content: dict[str, Any]


def state_of(
    *,
    step: int,
    net: Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    processes: Processes = ALONE,
) -> Checkpoint:
    """The state of a run, with whole tensors in process 0. All its processes must ask for it together."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> None:
        gathered = whole(tensor)
        if processes.is_first:
            # On a GPU there may be room for one gathered tensor only.
            tensors[name] = gathered if gathered is tensor else gathered.cpu()

    for name, each in net.state_dict().items():
        keep(f"net.{name}", each)
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        values[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                keep(f"optimizer.{index}.{key}", value)
            else:
                values[str(index)][key] = value
    for rank, each in enumerate(processes.gathered(torch.random.get_rng_state())):
        tensors[_generator(rank)] = each
    scheduled = {
        key: value
        for key, value in schedule.state_dict().items()
        if isinstance(value, int | float | list) and key != "lr_lambdas"
    }
    content = {
        "step": step,
        "groups": state["param_groups"],
        "values": values,
        "schedule": scheduled,
    }
    return Checkpoint(step, tensors, content)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the state to `path` atomically."""
    write_archive(path, checkpoint.tensors, kind=KIND, content=checkpoint.content)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of `write_checkpoint`.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    tensors, content = read_archive(path, kind=KIND)
    if not isinstance(content, dict) or {"step", "groups", "values", "schedule"} - set(content):
        raise CheckpointError(
            str(path), "must hold a run's state", "other content", "Start the run again."
        )
    return Checkpoint(content["step"], tensors, content)


def read_first_checkpoint(path: Path, processes: Processes) -> Checkpoint:
    """The checkpoint that process 0 reads, in every process: the others may see an older file, or none.

    Raises:
        CheckpointError: the file is missing, damaged or of another format. All processes raise it.
    """
    found: list[Checkpoint] = []

    def read() -> tuple[int, dict[str, Any]]:
        found.append(read_checkpoint(path))
        return found[0].step, found[0].content

    step, content = processes.from_first(read)
    tensors = processes.tensors_from_first(found[0].tensors if found else None)
    return Checkpoint(step, tensors, content)


def restore_(
    checkpoint: Checkpoint,
    path: Path,
    *,
    net: Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    processes: Processes = ALONE,
) -> None:
    """Restore the net, the optimiser, the schedule and torch's generator from a checkpoint.

    Raises:
        CheckpointError: the checkpoint belongs to another network or optimiser.
    """
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in checkpoint.content["values"].items()
    }
    weights: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "net":
            weights[rest] = tensor
        elif kind == "optimizer":
            index, _, key = rest.partition(".")
            state[int(index)][key] = tensor
    try:
        load_whole_(net, weights)
        optimizer.load_state_dict(
            {
                "state": placed_state(optimizer, state),
                "param_groups": checkpoint.content["groups"],
            }
        )
        # The functions of the schedule are not stored, but torch requires the key.
        shapes = [None] * len(optimizer.param_groups)
        scheduled = {
            key: _for_groups(value, len(shapes))
            for key, value in checkpoint.content["schedule"].items()
        }
        schedule.load_state_dict({**scheduled, "lr_lambdas": shapes})
    except (RuntimeError, ValueError, KeyError) as error:
        seen = error.seen if isinstance(error, ArgumentError) else str(error).splitlines()[0]
        raise CheckpointError(
            str(path),
            "must belong to the run beside it",
            seen,
            "Put back the run.yaml that the run was started with.",
        ) from None
    generator = checkpoint.tensors.get(_generator(processes.rank))
    if generator is None:
        # The run had fewer processes when it was saved.
        processes.reseed(checkpoint.step)
    else:
        torch.random.set_rng_state(generator)


def _generator(rank: int) -> str:
    """The entry with the state of a process's random numbers."""
    return f"generator.{rank}" if rank else "generator"


def _for_groups(value: Any, count: int) -> Any:
    """A schedule's list for the current number of groups; earlier versions had one group for each weight.

    All groups of a run have the same rate.
    """
    if not isinstance(value, list) or len(value) == count:
        return value
    return value[:1] * count


def load_trained(directory: RunDirectory) -> Module:
    """The network from the last checkpoint of a run directory.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another run, or a weight in it is not finite.
    """
    if not directory.checkpoint.exists():
        raise CheckpointError(
            str(directory.path),
            "must hold a checkpoint",
            "none",
            f"The run was stopped before its first one: `modular-manifolds train --resume {directory.path}`.",
        )
    run = directory.read_run()
    net = load(directory.initial, max_modules=run.max_modules, max_weights=run.max_weights)
    prefix = "net."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in read_checkpoint(directory.checkpoint).tensors.items()
        if name.startswith(prefix)
    }
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(
                f"{directory.checkpoint}: '{name}'",
                "must be finite",
                "NaN or infinity",
                "The run diverged: train it again with a lower rate.",
            )
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            str(directory.checkpoint),
            "must belong to the run beside it",
            " ".join(str(error).split())[:120],
            "Train the run again.",
        ) from None
    return net

"""The checks of checkpoints by `torch.distributed.checkpoint`: processes of one world save, and those of another go on.

Every world saves once, in each layout, and goes on; every world takes up all checkpoints that are there, in each layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from forked import long_tests_run, results_folder
from sharding import LAYOUTS, Twin, full_state, full_weights, model_and_plan
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from trained import backward, wrapped_in_ddp

import modular_manifolds as mm

WORLDS: Final = {"refused": (2,), "empty": (2,)}
STEPS = 3
SAVED = {
    1: (("ddp", "mlp"),),
    2: (("ddp", "mlp"), ("fsdp", "mlp"), ("tp", "mlp")),
    4: (("fsdp_tp", "gpt2"), ("hsdp", "gpt2"), ("hsdp", "mlp")),
}
"""The checkpoints that a world of so many processes saves: layout and model."""
TAKEN = {1: ("ddp",), 2: ("ddp", "fsdp", "tp"), 4: ("fsdp", "hsdp", "fsdp_tp")}
"""The layouts in which it takes up every checkpoint. DistributedDataParallel around one process is the bare model."""
USUAL_SAVED: Final = {2: (("ddp", "mlp"), ("fsdp", "mlp"))}
"""The checkpoints that a plain run saves."""
USUAL: Final = {
    ("ddp", 1): ("ddp",),
    ("ddp", 2): ("fsdp",),
    ("fsdp", 1): ("ddp",),
    ("fsdp", 2): ("fsdp", "tp"),
}
"""The layouts in which a plain run takes them up: by the layout that saved, and the number of processes that go on."""
SETTINGS = {"momentum": 0.9, "nesterov": True, "noise_damping": True}


class Run:
    """A model and its optimiser in a layout. Its steps are those of one process, up to rounding."""

    def __init__(self, name: str, layout: str, *, model: Any = None, **settings: Any) -> None:
        self.name, self.layout = name, layout
        known, plan = model_and_plan(name)
        if model is not None:
            known = plan = model
        self.twin = Twin(known)
        options: dict[str, Any] = {**SETTINGS, **settings}
        if layout == "ddp":
            self.model = wrapped_in_ddp(known)
            # The plan was made before the wrapper.
            options["owner"] = dist.group.WORLD
        else:
            LAYOUTS[layout](known)
            self.model = known
        self.opt = mm.SteepestDescent(plan, 0.02, **options)

    def train(self) -> None:
        for _ in range(STEPS):
            if self.layout in ("ddp", "fsdp", "hsdp"):
                backward(self.name, self.model)
            else:
                self.twin.give_gradients(self.model, self.name)
            self.opt.step()

    def save(self, folder: Path, options: StateDictOptions) -> None:
        weights, state = get_state_dict(self.model, self.opt, options=options)
        save({"model": weights, "opt": state}, checkpoint_id=folder)

    def load(self, folder: Path, options: StateDictOptions) -> None:
        weights, state = get_state_dict(self.model, self.opt, options=options)
        try:
            load({"model": weights, "opt": state}, checkpoint_id=folder)
        except CheckpointException as error:
            # Not an Exception, so that nobody would see it here.
            raise ValueError(str(error)) from None
        set_state_dict(
            self.model,
            self.opt,
            model_state_dict=weights,
            optim_state_dict=state,
            options=options,
        )

    def everything(self) -> dict[str, Tensor]:
        """Weights and their state, whole."""
        weights = full_weights(self.model)
        bare = {name.removeprefix("module."): each for name, each in weights.items()}
        return {**bare, **full_state(self.opt)}


def flattened(name: str, layout: str) -> StateDictOptions:
    """Half of the checkpoints are flattened."""
    return StateDictOptions(flatten_optimizer_state_dict=(name == "mlp") == (layout != "tp"))


def checkpoints() -> Iterator[tuple[int, str, str, Path]]:
    """The worlds, layouts and models of the checkpoints that are there, in an order that all processes share."""
    for folder in sorted(results_folder().glob("saved-*-*-*")):
        if folder.is_dir():
            _, world, layout, name = folder.name.split("-")
            yield int(world), layout, name, folder


def check_saved() -> Any:
    """Save in the middle, and go on to the end."""
    world = dist.get_world_size()
    for layout, name in (SAVED if long_tests_run() else USUAL_SAVED).get(world, ()):
        folder = results_folder() / f"saved-{world}-{layout}-{name}"
        known = folder.exists()
        dist.barrier()
        if known:
            continue
        run = Run(name, layout)
        run.train()
        run.save(folder, flattened(name, layout))
        run.train()
        end = run.everything()
        if dist.get_rank() == 0:
            torch.save(end, folder.with_suffix(".end"))
        dist.barrier()


def check_went_on() -> Any:
    """Go on from every checkpoint in every layout: the largest relative difference at the end, and whether none is."""
    world = dist.get_world_size()
    # A world may come twice: the second time there are more checkpoints.
    earlier = results_folder() / f"{world}-{dist.get_rank()}-went_on.pt"
    found: dict[tuple[Any, ...], tuple[float, bool]] = {}
    if earlier.exists():
        found = torch.load(earlier, weights_only=False)[0] or {}
    for saved_world, saved_layout, name, folder in checkpoints():
        expected = torch.load(folder.with_suffix(".end"), weights_only=True)
        for layout in TAKEN[world] if long_tests_run() else USUAL[saved_layout, world]:
            key = name, saved_world, saved_layout, world, layout
            if key in found:
                continue
            run = Run(name, layout)
            run.load(folder, flattened(name, saved_layout))
            run.train()
            end = run.everything()
            same = all(torch.equal(end[key], each) for key, each in expected.items())
            assert end.keys() == expected.keys()
            found[key] = _largest_difference(end, expected), same
    return found


def _largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a weight, relative to it; of a vector, relative to all vectors, as some start at zero."""
    weights = {name: each for name, each in expected.items() if " " not in name}
    vectors = torch.cat([each for each in weights.values() if each.dim() == 1] or [torch.ones(1)])
    sizes = {n: (each if each.dim() > 1 else vectors).norm() for n, each in weights.items()}
    return max(float((found[n] - each).norm() / sizes[n]) for n, each in weights.items())


def check_empty() -> Any:
    """An optimiser without state: torch takes a step with zero gradients to make some. Nothing may change."""
    found: dict[str, Any] = {}
    for layout in TAKEN[2] if long_tests_run() else ("fsdp",):
        ball = mm.models.MLP(12, 5, hidden=(24,), manifold=mm.SpectralBall())
        without = {"momentum": 0.0, "nesterov": False, "noise_damping": False}
        run = Run("mlp", layout, model=ball, **without)
        run.train()
        run.opt.zero_grad()
        before, rate = run.everything(), run.opt.param_groups[0]["lr"]
        held = len(run.opt.state_dict()["state"])
        get_state_dict(run.model, run.opt)
        after = run.everything()
        same = all(torch.equal(each, after[name]) for name, each in before.items())
        found[layout] = held, same and run.opt.param_groups[0]["lr"] == rate
    return found


def check_refused() -> Any:
    """Take up a checkpoint with other manifolds, names or sizes: the messages."""
    found: dict[tuple[str, str], str] = {}
    for layout in TAKEN[2] if long_tests_run() else ("fsdp",):
        for case, other in OTHERS.items():
            run = Run("mlp", layout, model=other())
            try:
                run.load(results_folder() / f"saved-2-{layout}-mlp", flattened("mlp", layout))
            except Exception as error:
                found[layout, case] = str(error)
    return found


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "manifold": lambda: mm.models.MLP(12, 5, hidden=(24, 24, 24), manifold=mm.SpectralBall()),
    "deeper": lambda: mm.models.MLP(12, 5, hidden=(24, 24, 24, 24)),
    "renamed": lambda: mm.ReLU() >> mm.models.MLP(12, 5, hidden=(24, 24, 24)),
}

"""The tasks: a plain torch model, its data and its sizes. A new task is one row of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from arena.data import (
    CONTEXT,
    Data,
    Sources,
    digit_pixels,
    digits,
    photographs,
    python_text,
    text,
)
from arena.models import GPT, ResNet, ViT, mlp


@dataclass(frozen=True)
class Task:
    """A model and what it learns.

    Args:
        build: `build(classes, width, depth)` is the model with fresh weights, drawn from torch's random numbers.
        data: reads the examples.
        width: the base width.
        depth: the base depth.
        batch: the number of examples of a step.
        steps: the number of steps.
        widths: the widths of the study of widths.
        depths: the depths of the study of depths.
        lengths: the numbers of steps of the study of lengths.
    """

    build: Callable[[int, int, int], nn.Module]
    data: Callable[[Sources], Data]
    width: int
    depth: int
    batch: int
    steps: int = 200
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def sizes(self, field: str) -> tuple[int, ...]:
        """The sizes of a study: of `width`, `depth` or `steps`."""
        return {"width": self.widths, "depth": self.depths, "steps": self.lengths}[field]


def _digit_mlp(classes: int, width: int, depth: int) -> nn.Module:
    return mlp(64, classes, width=width, depth=depth)


def _photograph_mlp(classes: int, width: int, depth: int) -> nn.Module:
    return mlp(3 * 32 * 32, classes, width=width, depth=depth)


def _gpt(classes: int, width: int, depth: int) -> nn.Module:
    return GPT(classes, width=width, depth=depth, context=CONTEXT)


def _vit(classes: int, width: int, depth: int) -> nn.Module:
    return ViT(classes, width=width, depth=depth)


def _digit_vit(classes: int, width: int, depth: int) -> nn.Module:
    return ViT(classes, width=width, depth=depth, channels=1, size=8, patch=2)


def _resnet(classes: int, width: int, depth: int) -> nn.Module:
    return ResNet(classes, width=width, depth=depth)


TASKS: Final[dict[str, Task]] = {
    "mlp-digits": Task(_digit_mlp, digits, width=64, depth=2, batch=64),
    "vit-digits": Task(_digit_vit, digit_pixels, width=64, depth=2, batch=64),
    "gpt-python": Task(_gpt, python_text, width=64, depth=2, batch=16),
    "gpt": Task(
        _gpt,
        text,
        width=64,
        depth=2,
        batch=16,
        widths=(16, 32, 64, 128, 256),
        depths=(1, 2, 4, 8),
        lengths=(200, 400, 800, 1600),
    ),
    "mlp-cifar10": Task(
        _photograph_mlp,
        photographs,
        width=128,
        depth=2,
        batch=128,
        widths=(32, 64, 128, 256, 512),
        depths=(1, 2, 4, 8),
        lengths=(200, 400, 800, 1600),
    ),
    "vit-cifar10": Task(_vit, photographs, width=64, depth=2, batch=64),
    "resnet-cifar10": Task(_resnet, photographs, width=16, depth=1, batch=64),
}
"""The tasks by name, the quickest first."""

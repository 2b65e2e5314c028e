"""A small GPT that learns to write like a text, character by character.

The whole network has one learning rate; the printed budget shows the share of each weight. Run it on
any text in UTF-8:

    python examples/char_gpt.py input.txt --steps 1000

`examples/char_gpt.yaml` is the same run for the command line, with checkpoints and a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.sampling import write
from modular_manifolds.training.text import read_text


@dataclass(frozen=True)
class Trained:
    """The training loss of each step in nats per character, and a sample of generated text."""

    losses: list[float]
    sample: str


def run(
    path: Path,
    *,
    width: int = 128,
    depth: int = 4,
    context: int = 128,
    batch: int = 16,
    steps: int = 1000,
    lr: float = 1.0,
    quiet: bool = False,
) -> Trained:
    """Train on the first nine tenths of the text, then write."""
    torch.manual_seed(0)
    text = read_text(TextSpec(name="text", path=str(path), context=context))
    net = mm.models.GPT(len(text.classes), width=width, depth=depth, heads=4)
    optimizer = mm.SteepestDescent(net, lr=lr, momentum=0.9, nesterov=True)
    schedule = LambdaLR(optimizer, lambda step: 1 - step / steps)
    if not quiet:
        print(mm.budget(net, lr))
    losses: list[float] = []
    for step in range(steps):
        starts = torch.randint(len(text.train.tokens) - context, (batch,))
        inputs, labels = text.train.take(starts)
        loss = functional.cross_entropy(net(inputs).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if not quiet and (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}: loss {sum(losses[-50:]) / 50:.3f}")
    sample = write(net, text.spec)
    if not quiet:
        print(sample)
    return Trained(losses, sample)


def main(
    path: Annotated[Path, typer.Argument(help="A text in UTF-8.")],
    steps: Annotated[int, typer.Option(help="How many batches of windows to learn from.")] = 1000,
) -> None:
    """Train a small GPT on a text and let it write."""
    run(path, steps=steps)


if __name__ == "__main__":
    typer.run(main)

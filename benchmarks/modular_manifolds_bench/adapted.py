"""A GPT in plain torch that nobody tuned, trained by one measured budget: which masses and geometries serve it.

    python -m modular_manifolds_bench.adapted --data-path input.txt --rates 0.25 0.5 1 --hidden stiefel ball plain

The model is a small nanoGPT: LayerNorm, GELU, a fused weight for queries, keys and values, learned positions. Every line of
the table is one training run of 200 steps on 16×64 characters.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.adapt.measure import responses
from modular_manifolds.nn.piece import Piece

CONTEXT, BATCH, VOCABULARY = 64, 16, 65
HIDDEN: Final = {"stiefel": mm.Stiefel(), "ball": mm.SpectralBall(), "plain": mm.Euclidean()}
NORMS: Final = {"max": mm.Max(), "rms": mm.RMSOperator()}
Masses = tuple[float, float, float, float]
"""Of the embeddings, the hidden matrices, the head and the vectors, each for all weights of the role together."""


@dataclass(frozen=True)
class Setting:
    """One training run.

    Args:
        hidden: the manifold of the hidden matrices, by its name in `HIDDEN`.
        vectors: the norm of gains and biases, by its name in `NORMS`.
        measure_every: steps between two measurements of the responses; 0 measures before the first step only.
        init: `torch` for torch's own start, `nanogpt` for normal weights of 0.02.
    """

    lr: float = 0.5
    hidden: str = "stiefel"
    masses: Masses = (1.0, 3.0, 0.3, 0.1)
    vectors: str = "max"
    momentum: float = 0.95
    nesterov: bool = True
    width: int = 64
    depth: int = 2
    steps: int = 200
    seed: int = 0
    measure_every: int = 0
    tied: bool = False
    init: str = "torch"


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        fused = self.c_attn(self.ln_1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = fused.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(mixed.transpose(1, 2).flatten(2))
        return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """nanoGPT's model."""

    def __init__(self, width: int, depth: int, *, heads: int = 4, tied: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@dataclass(frozen=True)
class Row:
    """A logical matrix with its geometry and its mass."""

    parameter: nn.Parameter
    piece: Piece
    geometry: mm.Geometry
    mass: float


def rows_of(net: GPT, setting: Setting) -> dict[str, Row]:
    """The logical matrices of the model by name."""
    embedding, hidden, head, vectors = setting.masses
    found: dict[str, Row] = {}
    named = dict(net.named_parameters())
    hidden_count = 6 * setting.depth
    vector_count = sum(each.dim() == 1 for each in named.values())
    by_rows = mm.Geometry(mm.Euclidean(), mm.RowRMS())
    for name, weight in named.items():
        shape = tuple(weight.shape)
        if weight.dim() == 1:
            geometry = mm.Geometry(mm.Euclidean(), NORMS[setting.vectors])
            piece = Piece("", (shape[0], 1), (), (), (0,), (1,))
            found[name] = Row(weight, piece, geometry, vectors / vector_count)
            continue
        whole = Piece("", shape, (), (), (0,), (1,))
        if name.startswith("w"):
            both = head if setting.tied and name.startswith("wte") else 0.0
            found[name] = Row(weight, whole, by_rows, embedding / 2 + both)
        elif name.startswith("lm_head"):
            free = mm.Geometry(mm.Euclidean(), mm.RMSOperator())
            found[name] = Row(weight, whole, free, head)
        else:
            parts = 3 if "c_attn" in name else 1
            split = (parts, shape[0] // parts, shape[1])
            ratio = math.sqrt(split[1] / split[2])
            geometry = mm.Geometry(HIDDEN[setting.hidden].scaled(ratio), mm.RMSOperator())
            for place in range(parts):
                piece = Piece("qkv"[place], split, ((0, place, 1),), (), (0, 1), (2,))
                row = Row(weight, piece, geometry, hidden / hidden_count)
                found[f"{name}[{piece.name}]" if parts > 1 else name] = row
    return found


class Descent:
    """Steepest descent on the rows, each by its share of the rate, in plain loops."""

    def __init__(self, net: GPT, rows: dict[str, Row], setting: Setting) -> None:
        self.net, self.rows, self.setting = net, rows, setting
        self.momentum = {
            id(row.parameter): torch.zeros_like(row.parameter) for row in rows.values()
        }
        self.shares: dict[str, float] = {}
        self.groups: dict[tuple[mm.Geometry, tuple[int, ...]], list[str]] = {}
        for name, row in rows.items():
            self.groups.setdefault((row.geometry, row.piece.shape), []).append(name)

    def measure(self, tokens: Tensor, targets: Tensor) -> dict[str, float]:
        """Shares that move the outputs by the rate at most, by the responses on this batch."""
        matrices = {
            name: (row.parameter, row.piece, row.geometry) for name, row in self.rows.items()
        }
        found = responses(self.net, matrices, tokens, loss=lambda y: loss_of(y, targets))
        total = sum(row.mass for row in self.rows.values())
        # The bias of the keys moves nothing: it gets what the next smallest response of a vector allows.
        self.shares = {
            name: row.mass / total / max(found[name], 1e-3) for name, row in self.rows.items()
        }
        return found

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step by the gradients of the parameters."""
        mu, slopes = self.setting.momentum, dict[int, Tensor]()
        for parameter in {id(row.parameter): row.parameter for row in self.rows.values()}.values():
            gradient = parameter.grad
            assert gradient is not None
            momentum = self.momentum[id(parameter)].lerp_(gradient, 1 - mu)
            nesterov = self.setting.nesterov
            slopes[id(parameter)] = gradient.lerp(momentum, mu) if nesterov else momentum
        for (geometry, _), names in self.groups.items():
            rows = [self.rows[name] for name in names]
            points = torch.stack([row.piece.read(row.parameter) for row in rows])
            stack = torch.stack([row.piece.read(slopes[id(row.parameter)]) for row in rows])
            direction = mm.steepest(geometry.manifold, geometry.norm, points, stack).direction
            lengths = torch.tensor([lr * self.shares[name] for name in names])
            landed = geometry.manifold.retract(points, direction * lengths[:, None, None])
            for row, point in zip(rows, landed, strict=True):
                row.piece.write_(row.parameter, point)


@dataclass(frozen=True)
class Text:
    """Characters as numbers; the last tenth is held out."""

    train: Tensor
    held_out: Tensor

    @classmethod
    def read(cls, path: Path) -> Text:
        text = path.read_text(encoding="utf-8")
        places = {character: place for place, character in enumerate(sorted(set(text)))}
        numbers = torch.tensor([places[character] for character in text])
        cut = len(numbers) * 9 // 10
        return cls(numbers[:cut], numbers[cut:])


def batch_of(text: Tensor, generator: torch.Generator, count: int = BATCH) -> tuple[Tensor, Tensor]:
    """Windows of the text and the same windows one character later."""
    starts = torch.randint(len(text) - CONTEXT - 1, (count, 1), generator=generator)
    windows = text[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy of the next character."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def start(setting: Setting) -> tuple[GPT, dict[str, Row]]:
    """A fresh model with its constrained weights on their manifolds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        net = GPT(setting.width, setting.depth, tied=setting.tied)
        if setting.init == "nanogpt":
            for weight in net.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=0.02)
    rows = rows_of(net, setting)
    with torch.no_grad():
        for row in rows.values():
            if row.geometry.manifold.compact:
                point = row.geometry.manifold.project(row.piece.read(row.parameter))
                row.piece.write_(row.parameter, point)
    return net, rows


def train(setting: Setting, text: Text, *, watch_steps: int = 0) -> tuple[float, list[float]]:
    """The held-out loss after training, and for the first steps the linearised change of outputs over the rate.

    The change is that of a central difference in float64 on characters that the model is not trained on.
    """
    net, rows = start(setting)
    descent = Descent(net, rows, setting)
    generator = torch.Generator().manual_seed(setting.seed)
    held_out = torch.Generator().manual_seed(1)
    tokens, targets = batch_of(text.train, generator)
    descent.measure(tokens, targets)
    changes: list[float] = []
    for step in range(setting.steps):
        tokens, targets = batch_of(text.train, generator)
        if setting.measure_every and step and step % setting.measure_every == 0:
            descent.measure(tokens, targets)
        net.zero_grad()
        loss_of(net(tokens), targets).backward()
        lr = setting.lr * (1 - step / setting.steps)
        before = {name: each.detach().clone() for name, each in net.named_parameters()}
        descent.step(lr)
        if step < watch_steps:
            others, _ = batch_of(text.held_out, held_out)
            changes.append(linearised_change(net, before, others) / lr)
    with torch.no_grad():
        tokens, targets = batch_of(text.held_out, torch.Generator().manual_seed(2), 256)
        return float(loss_of(net(tokens), targets)), changes


@torch.no_grad()
def linearised_change(net: GPT, before: dict[str, Tensor], tokens: Tensor) -> float:
    """The rms of the derivative of the outputs along the step that was just taken, at the weights before it."""
    epsilon = 1e-4
    after = {name: each.detach().double() for name, each in net.named_parameters()}

    def outputs(sign: float) -> Tensor:
        moved = {
            name: old.double() + sign * epsilon * (after[name] - old.double())
            for name, old in before.items()
        }
        return torch.func.functional_call(net, moved, (tokens,))

    change = (outputs(1) - outputs(-1)) / (2 * epsilon)
    return float(change.square().mean().sqrt())


def settings_of(options: argparse.Namespace) -> Iterator[Setting]:
    """Every combination that the options name."""
    base = Setting(width=options.width, depth=options.depth, seed=options.seed, tied=options.tied)
    base = replace(base, measure_every=options.measure_every, init=options.init)
    masses = [tuple(map(float, each.split(","))) for each in options.masses]
    axes = (options.hidden, masses, options.vectors, options.momentum, options.rates)
    for hidden, mass, vectors, momentum, lr in itertools.product(*axes):
        yield replace(base, hidden=hidden, masses=mass, vectors=vectors, momentum=momentum, lr=lr)


def main() -> None:
    """Run every combination of the options, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data-path", type=Path, required=True, help="a text of 65 characters")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5])
    parser.add_argument("--hidden", nargs="+", default=["stiefel"], choices=list(HIDDEN))
    parser.add_argument("--masses", nargs="+", default=["1,3,0.3,0.1"])
    parser.add_argument("--vectors", nargs="+", default=["max"], choices=list(NORMS))
    parser.add_argument("--momentum", type=float, nargs="+", default=[0.95])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--init", default="torch", choices=["torch", "nanogpt"])
    parser.add_argument("--measure-every", type=int, default=0)
    parser.add_argument("--watch-steps", type=int, default=0)
    options = parser.parse_args()
    text = Text.read(options.data_path)
    for setting in settings_of(options):
        begun = time.process_time()
        loss, changes = train(setting, text, watch_steps=options.watch_steps)
        largest = f"  change / lr {min(changes):.2f} to {max(changes):.2f}" if changes else ""
        print(
            f"{setting.hidden:8} lr {setting.lr:<6g} masses {setting.masses} vectors {setting.vectors}"
            f" momentum {setting.momentum} init {setting.init} tied {setting.tied}"
            f" every {setting.measure_every}: {loss:.3f}{largest}"
            f"  ({time.process_time() - begun:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()

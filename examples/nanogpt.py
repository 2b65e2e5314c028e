"""A script in the manner of nanoGPT, in plain torch: a model, a text, a loop. Two lines make it ours.

They are marked `modular_manifolds` below. The model stays a `torch.nn.Module` with nothing changed. Run it on any text
in UTF-8, with our optimiser, with AdamW, or with torch's Muon for hidden matrices and AdamW for the rest:

    python examples/nanogpt.py --data input.txt
    python examples/nanogpt.py --data input.txt --optimizer adamw
    python examples/nanogpt.py --data input.txt --optimizer muon

`--lr` takes several rates and prints one line for each. The layout follows A. Karpathy's nanoGPT
(https://github.com/karpathy/nanoGPT): fused queries, keys and values, learned positions, LayerNorm, no biases. One
thing differs: the head has a weight of its own, while nanoGPT shares the embedding's.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm

RATES = {"ours": 1.0, "adamw": 2**-8, "muon": 2**-4}
"""The default rate of each optimiser: the best of a grid of factors of two on tiny Shakespeare."""

ADAMW_BESIDE_MUON = 2**-5
"""AdamW's rate for the weights that Muon does not step, tuned together with Muon's rate."""

WEIGHT_DECAY = 0.1
"""The weight decay of AdamW and Muon, on matrices."""


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_head = heads
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        split = (each.unflatten(-1, (self.n_head, -1)) for each in self.c_attn(x).chunk(3, dim=-1))
        q, k, v = (each.transpose(1, 2) for each in split)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width, bias=False), CausalSelfAttention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width, bias=False), MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, tokens: int, *, width: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(tokens, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width, bias=False)
        self.lm_head = nn.Linear(width, tokens, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                branches = 2 * depth if name.endswith("c_proj.weight") else 1
                nn.init.normal_(weight, std=0.02 / math.sqrt(branches))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@dataclass(frozen=True)
class Text:
    """A text as numbers, one for each character, cut into nine tenths to train on and one to validate."""

    characters: str
    train: Tensor
    valid: Tensor

    @classmethod
    def read(cls, path: Path) -> Text:
        text = path.read_text(encoding="utf-8")
        characters = "".join(sorted(set(text)))
        number = {character: index for index, character in enumerate(characters)}
        tokens = torch.tensor([number[character] for character in text])
        cut = len(tokens) * 9 // 10
        return cls(characters, tokens[:cut], tokens[cut:])


@dataclass(frozen=True)
class Settings:
    width: int = 64
    depth: int = 2
    heads: int = 4
    context: int = 64
    batch: int = 16
    steps: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """Losses in nats a character: of every training batch, and over the whole validation text."""

    losses: list[float]
    valid: float
    seconds: float


def optimizers(
    name: str, model: nn.Module, batch: Tensor, lr: float, adamw_lr: float
) -> list[torch.optim.Optimizer]:
    """The optimisers that step the model; ours and AdamW are one each, Muon needs AdamW beside it."""
    if name == "ours":
        plan = mm.adapt(model, example_inputs=batch, progress=False)  # modular_manifolds
        return [mm.SteepestDescent(plan, lr, momentum=0.95, nesterov=True)]  # modular_manifolds
    hidden, matrices, vectors = [], [], []
    for path, weight in model.named_parameters():
        is_hidden = name == "muon" and path.startswith("h.") and weight.dim() == 2
        (hidden if is_hidden else matrices if weight.dim() == 2 else vectors).append(weight)
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    rate = lr if name == "adamw" else adamw_lr
    adamw = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    if name == "adamw":
        return [adamw]
    return [torch.optim.Muon(hidden, lr=lr, weight_decay=WEIGHT_DECAY), adamw]


def cosine(steps: int) -> Callable[[int], float]:
    """A factor on the rate: it rises over the first twentieth of the steps, then falls to zero along half a cosine."""
    rise = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

    return factor


def train(text: Text, name: str, settings: Settings, *, lr: float, adamw_lr: float) -> Result:
    """Train from the seed's start on the seed's batches, which are the same for every optimiser."""
    torch.manual_seed(settings.seed)
    shape = {key: getattr(settings, key) for key in ("width", "depth", "heads", "context")}
    model = GPT(len(text.characters), **shape)
    windows = text.train.unfold(0, settings.context + 1, 1)
    places = torch.randint(len(windows), (settings.steps, settings.batch))
    steppers = optimizers(name, model, windows[places[0]][:, :-1], lr, adamw_lr)
    schedules = [LambdaLR(each, cosine(settings.steps)) for each in steppers]
    losses: list[float] = []
    start = time.perf_counter()
    for place in places:
        loss = loss_of(model, windows[place])
        model.zero_grad()
        loss.backward()
        for each in (*steppers, *schedules):
            each.step()
        losses.append(float(loss.detach()))
    seconds = time.perf_counter() - start
    return Result(losses, validate(model, text.valid, settings.context), seconds)


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    logits = model(windows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def validate(model: nn.Module, tokens: Tensor, context: int) -> float:
    """The loss over all windows of the text, end to end."""
    windows = tokens.unfold(0, context + 1, context)
    sums = [float(loss_of(model, part)) * len(part) for part in windows.split(128)]
    return sum(sums) / len(windows)


def main(arguments: Sequence[str] | None = None) -> dict[tuple[float, float], Result]:
    parser = argparse.ArgumentParser(description="Train a small GPT on the characters of a text.")
    parser.add_argument("--data", type=Path, required=True, help="a text in UTF-8")
    parser.add_argument("--optimizer", choices=tuple(RATES), default="ours")
    parser.add_argument("--lr", type=float, nargs="+", help="one rate or several")
    parser.add_argument("--adamw-lr", type=float, nargs="+", default=[ADAMW_BESIDE_MUON])
    for key, value in vars(Settings()).items():
        parser.add_argument(f"--{key}", type=int, default=value)
    given = vars(parser.parse_args(arguments))
    text, name = Text.read(given["data"]), given["optimizer"]
    settings = Settings(**{key: given[key] for key in vars(Settings())})
    rates = given["lr"] or [RATES[name]]
    beside = given["adamw_lr"] if name == "muon" else [0.0]
    results: dict[tuple[float, float], Result] = {}
    for lr, adamw_lr in itertools.product(rates, beside):
        found = results[lr, adamw_lr] = train(text, name, settings, lr=lr, adamw_lr=adamw_lr)
        second = f", AdamW's {adamw_lr:g}" if name == "muon" else ""
        print(
            f"{name}: rate {lr:g}{second}: validation loss {found.valid:.3f}, "
            f"training loss {sum(found.losses[-20:]) / len(found.losses[-20:]):.3f}, {found.seconds:.0f} s",
            flush=True,
        )
    return results


if __name__ == "__main__":
    main()

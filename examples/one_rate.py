"""One learning rate for many models: what the default rate costs beside the best of a grid.

Twelve models of different kinds learn small real tasks, each at every rate of the grid: characters of a text, one after the
other, masked, or from one line to the next; photographs of CIFAR-10; and low-rank increments of a model that was trained on
another spelling. Each is built from its configuration, with fresh weights as its authors draw them, and adapted as it is:

    python examples/one_rate.py --text input.txt --images DIR --out results
    python examples/one_rate.py --text input.txt --only gpt2 llama --lr 0.25 0.5 1

Results are appended to a file of `--out`; what is in it is not run again. The last table says for every model the best rate,
and how far the loss of each rate lies above the best one. Needs the extra `test`, for transformers and peft.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from nanogpt import GPT, Text, cosine
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm

RATES: Final = (0.125, 0.25, 0.5, 1.0, 2.0)
WIDTH, HEADS, DEPTH, CONTEXT = 64, 4, 2, 64
BATCH: Final = 16
VALIDATION_BATCHES: Final = 24

Batch = dict[str, Tensor]
Draw = Callable[[torch.Generator], Batch]
"""Draws a batch: what the model is called with, and `labels`."""


@dataclass(frozen=True)
class Task:
    """A model and its data.

    Args:
        model: with fresh weights, drawn from torch's random numbers.
        train, valid: draw batches.
    """

    model: Callable[[], nn.Module]
    train: Draw
    valid: Draw


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    found = model(**{key: value for key, value in batch.items() if key != "labels"})
    return found if isinstance(found, Tensor) else found.logits


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    logits = logits_of(model, batch)
    # Positions with the label -100 are not predicted.
    return functional.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten())


def hugging_face(name: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        transformers = importlib.import_module("transformers")
        return getattr(transformers, name)(getattr(transformers, config)(**settings))

    return build


class Translator(nn.Module):
    """`torch.nn.Transformer` between an embedding and a head."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(tokens, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, DEPTH, DEPTH, 4 * WIDTH, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(WIDTH, tokens)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        source, target = (
            self.embedding(each) + self.positions.weight[: each.shape[1]]
            for each in (source, target)
        )
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True))


def windows(tokens: Tensor, length: int, generator: torch.Generator) -> Tensor:
    places = torch.randint(len(tokens) - length, (BATCH, 1), generator=generator)
    return tokens[places + torch.arange(length)]


def next_character(tokens: Tensor, key: str = "input_ids") -> Draw:
    def draw(generator: torch.Generator) -> Batch:
        cut = windows(tokens, CONTEXT + 1, generator)
        return {key: cut[:, :-1], "labels": cut[:, 1:].contiguous()}

    return draw


def masked(tokens: Tensor, mask: int) -> Draw:
    """15 % of the characters are hidden and predicted."""

    def draw(generator: torch.Generator) -> Batch:
        cut = windows(tokens, CONTEXT, generator)
        hidden = torch.rand(cut.shape, generator=generator) < 0.15
        return {
            "input_ids": cut.masked_fill(hidden, mask),
            "labels": cut.masked_fill(~hidden, -100),
        }

    return draw


def continuation(tokens: Tensor, source: str, target: str) -> Draw:
    """Windows whose first half asks for the second."""

    def draw(generator: torch.Generator) -> Batch:
        first, second = windows(tokens, CONTEXT, generator).chunk(2, dim=1)
        before = torch.cat((first[:, -1:], second[:, :-1]), dim=1)
        return {source: first, target: before, "labels": second.contiguous()}

    return draw


def photographs(folder: Path, split: str) -> Draw:
    """Images and labels of Parquet files with the columns `img` and `label`."""
    pandas = importlib.import_module("pandas")
    image = importlib.import_module("PIL.Image")
    numpy = importlib.import_module("numpy")
    files = sorted(folder.rglob(f"*{split}*.parquet"))
    if not files:
        raise SystemExit(f"--images must hold *{split}*.parquet, and {folder} holds none")
    table = pandas.concat([pandas.read_parquet(file) for file in files]).iloc[:10_000]
    pixels = [numpy.asarray(image.open(io.BytesIO(each["bytes"]))) for each in table["img"]]
    images = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    labels = torch.tensor(table["label"].to_numpy())

    def draw(generator: torch.Generator) -> Batch:
        places = torch.randint(len(images), (4 * BATCH,), generator=generator)
        return {"pixel_values": images[places], "labels": labels[places]}

    return draw


def as_input(draw: Draw) -> Draw:
    """The same photographs under the name that `nn.Sequential` takes."""

    def renamed(generator: torch.Generator) -> Batch:
        batch = draw(generator)
        return {"input": batch["pixel_values"], "labels": batch["labels"]}

    return renamed


def increments(base: Callable[[], nn.Module], tokens: Tensor) -> Callable[[], nn.Module]:
    """Low-rank increments of a model that AdamW has trained on `tokens`."""

    def build() -> nn.Module:
        peft = importlib.import_module("peft")
        model, draw = base(), next_character(tokens)
        generator = torch.Generator().manual_seed(1)
        adamw = torch.optim.AdamW(model.parameters(), lr=2**-8)
        for _ in range(150):
            adamw.zero_grad()
            loss_of(model, draw(generator)).backward()
            adamw.step()
        config = peft.LoraConfig(
            r=8, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with warnings.catch_warnings(action="ignore"):
            # peft asks transformers by a name that transformers has deprecated.
            return peft.get_peft_model(model, config)

    return build


def tasks(text: Text, images: Path | None) -> dict[str, Task]:
    count = len(text.characters)
    size: Mapping[str, Any] = {
        "vocab_size": count,
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 3 * WIDTH,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    grouped = {**size, "num_key_value_heads": 2}
    gpt2 = {"n_embd": WIDTH, "n_head": HEADS, "n_layer": DEPTH, "n_positions": CONTEXT}
    ids = {"bos_token_id": 0, "eos_token_id": 1}
    llama = hugging_face("LlamaForCausalLM", "LlamaConfig", **grouped)
    causal = {
        "gpt2": hugging_face("GPT2LMHeadModel", "GPT2Config", vocab_size=count, **gpt2, **ids),
        "llama": llama,
        "mixtral": hugging_face(
            "MixtralForCausalLM",
            "MixtralConfig",
            **{**grouped, "num_local_experts": 4, "num_experts_per_tok": 2},
        ),
        "phi3": hugging_face("Phi3ForCausalLM", "Phi3Config", **grouped),
    }
    learn, check = next_character(text.train), next_character(text.valid)
    found = {name: Task(build, learn, check) for name, build in causal.items()}

    def plain() -> nn.Module:
        return GPT(count, width=WIDTH, depth=DEPTH, heads=HEADS, context=CONTEXT)

    found["plain_gpt"] = Task(
        plain, next_character(text.train, "tokens"), next_character(text.valid, "tokens")
    )
    bert = hugging_face("BertForMaskedLM", "BertConfig", **{**size, "vocab_size": count + 1})
    found["bert"] = Task(bert, masked(text.train, count), masked(text.valid, count))
    t5 = hugging_face(
        "T5ForConditionalGeneration",
        "T5Config",
        vocab_size=count,
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=3 * WIDTH,
        num_layers=DEPTH,
        num_heads=HEADS,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    names = ("input_ids", "decoder_input_ids")
    found["t5"] = Task(t5, continuation(text.train, *names), continuation(text.valid, *names))
    found["transformer"] = Task(
        lambda: Translator(count),
        continuation(text.train, "source", "target"),
        continuation(text.valid, "source", "target"),
    )
    # Another spelling: lower and upper case change places.
    number = {character: index for index, character in enumerate(text.characters)}
    swapped = torch.tensor([number.get(each.swapcase(), i) for each, i in number.items()])
    found["lora"] = Task(
        increments(llama, text.train),
        next_character(swapped[text.train]),
        next_character(swapped[text.valid]),
    )
    if images is not None:
        learn, check = photographs(images, "train"), photographs(images, "test")
        vit = {**size, "image_size": 32, "patch_size": 4, "num_labels": 10}
        for key in ("vocab_size", "max_position_embeddings"):
            del vit[key]
        found["vit"] = Task(
            hugging_face("ViTForImageClassification", "ViTConfig", **vit), learn, check
        )
        resnet = hugging_face(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=10,
        )
        found["resnet"] = Task(resnet, learn, check)

        def perceptron() -> nn.Module:
            return nn.Sequential(
                nn.Flatten(),
                *(nn.Linear(3 * 32 * 32, 2 * WIDTH), nn.ReLU()),
                *(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU()),
                nn.Linear(WIDTH, 10),
            )

        found["perceptron"] = Task(perceptron, as_input(learn), as_input(check))
    return found


def train(task: Task, lr: float, *, steps: int, seed: int) -> float:
    """The validation loss after `steps` steps; the rate rises, then falls along a cosine."""
    torch.manual_seed(seed)
    model = task.model()
    generator = torch.Generator().manual_seed(seed)
    first = task.train(generator)
    inputs = {key: value for key, value in first.items() if key != "labels"}
    plan = mm.adapt(model, example_inputs=inputs, progress=False)
    optimizer = mm.SteepestDescent(plan, lr, momentum=0.95, nesterov=True)
    schedule = LambdaLR(optimizer, cosine(steps))
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, task.train(generator)).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    fixed = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [float(loss_of(model, task.valid(fixed))) for _ in range(VALIDATION_BATCHES)]
    return sum(losses) / len(losses)


def table(losses: Mapping[str, Mapping[float, float]], rates: Sequence[float]) -> str:
    """For each model the best loss, and how far above it the loss of each rate lies, in per cent."""
    lines = [" ".join(["model".ljust(12), "best loss", *(f"{rate:>8g}" for rate in rates)])]
    for name, row in losses.items():
        best = min(row.values())
        costs = [
            f"{100 * (row[rate] / best - 1):>7.1f}%" if math.isfinite(row[rate]) else "     inf"
            for rate in rates
        ]
        lines.append(" ".join([name.ljust(12), f"{best:9.3f}", *costs]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[float, float]]:
    parser = argparse.ArgumentParser(description="One learning rate for many models.")
    parser.add_argument("--text", type=Path, required=True, help="a text in UTF-8")
    parser.add_argument("--images", type=Path, help="a folder with CIFAR-10 as Parquet files")
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--lr", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for results, to go on from")
    given = parser.parse_args(arguments)
    every = tasks(Text.read(given.text), given.images)
    unknown = set(given.only or ()) - set(every)
    if unknown:
        parser.error(f"--only takes {', '.join(every)}, and was {', '.join(sorted(unknown))}")
    file = given.out / "one_rate.jsonl" if given.out else None
    known: dict[tuple[str, float, int, int], float] = {}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        for line in file.read_text().splitlines() if file.exists() else ():
            entry = json.loads(line)
            known[entry["model"], entry["lr"], entry["steps"], entry["seed"]] = entry["loss"]
    losses: dict[str, dict[float, float]] = {}
    for name in given.only or every:
        for lr in given.lr:
            point = (name, lr, given.steps, given.seed)
            if point not in known:
                start = time.perf_counter()
                known[point] = train(every[name], lr, steps=given.steps, seed=given.seed)
                seconds = time.perf_counter() - start
                print(f"{name} at {lr:g}: {known[point]:.3f}, {seconds:.0f} s", flush=True)
                if file is not None:
                    entry = dict(
                        zip(("model", "lr", "steps", "seed"), point, strict=True), loss=known[point]
                    )
                    with file.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(entry) + "\n")
            losses.setdefault(name, {})[lr] = known[point]
    print(table(losses, given.lr))
    return losses


if __name__ == "__main__":
    main()

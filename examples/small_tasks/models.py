"""Twelve models of different kinds, each with the data that it learns from."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from nanogpt import GPT, Text
from torch import Tensor, nn
from torch.nn import functional

from .draws import CONTEXT, Batch, Draw, as_input, continuation, masked, next_character, photographs

WIDTH: Final = 64
HEADS: Final = 4
DEPTH: Final = 2


@dataclass(frozen=True)
class Task:
    """A model and its data.

    Args:
        model: builds the model, with fresh weights that are drawn from torch's random numbers.
        train: draws a batch to learn from.
        valid: draws a batch of the held-out part.
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

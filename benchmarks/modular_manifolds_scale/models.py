"""Models without numbers: the weights that `mm.adapt` finds by default, as shapes on the meta device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.adaptation.assign import assign
from modular_manifolds.optim.weight import Weight

ROLES_OF_MUON: Final = ("hidden",)
"""Muon steps the matrices of these roles, AdamW all other weights."""


@dataclass(frozen=True)
class Model:
    """A model's weights by name, shape and geometry.

    Args:
        name: the name on the command line.
        weights: one for each row of the plan, on the meta device.
        muon: the stored matrices that Muon steps, as they are.
        numbers: the number of parameters.
        looked_up: parameters that a forward pass only looks up: input tables that are no output too.
        layers: the number of layers.
        width: the width of the residual stream.
        context: the tokens of one sequence.
    """

    name: str
    weights: tuple[Weight, ...]
    muon: tuple[Weight, ...]
    numbers: int
    looked_up: int
    layers: int
    width: int
    context: int

    def operations(self, tokens: int) -> float:
        """Floating-point operations of a forward and backward pass: `6 N + 6 · layers · context · width` a token.

        N leaves out tables that are only looked up. The second term is causal attention.
        """
        attention = self.layers * self.context * self.width
        return 6.0 * tokens * (self.numbers - self.looked_up + attention)


@functools.cache
def build_model(name: str, *, whole: bool = False) -> Model:
    """The model of this name.

    Args:
        name: a key of `MODELS`.
        whole: queries, keys and values are one matrix each, not one a head.
    """
    network, (layers, width, context), attention = MODELS[name]()
    rules = [*attention, mm.Rule("*")] if whole else None
    assignment = assign(network, rules)
    geometry = mm.Geometry(mm.Euclidean(), mm.Spectral())
    weights = [
        Weight(row.name, _shape_only(row.shape), row.geometry, 0, i, i)
        for i, row in enumerate(assignment.rows)
    ]
    roles = {row.parameter: row.role for row in assignment.rows}
    stored = {name: each for name, each in network.named_parameters() if name in roles}
    muon = [
        Weight(name, _shape_only(each.shape), geometry, 0, i, i)
        for i, (name, each) in enumerate(stored.items())
        if roles[name] in ROLES_OF_MUON
    ]
    tied = {row.parameter for row in assignment.rows if row.aliases}
    looked_up = sum(
        math.prod(row.shape)
        for row in assignment.rows
        if row.role in ("embedding", "position") and row.parameter not in tied
    )
    numbers = sum(each.numel() for each in stored.values())
    return Model(name, tuple(weights), tuple(muon), numbers, looked_up, layers, width, context)


Sizes = tuple[int, int, int]
Built = tuple[nn.Module, Sizes, list[mm.Rule]]


def _gpt2(layers: int, width: int, heads: int) -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads)
    with torch.device("meta"):
        network = GPT2LMHeadModel(config)
    split = mm.Split(parts=3, names=("q", "k", "v"))
    rules = [mm.Rule("*.attn.c_attn.weight", split=split)]
    return _without_numbers(network), (layers, width, config.n_positions), rules


def _llama(layers: int, width: int, inner: int, heads: int) -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
        vocab_size=32000,
        max_position_embeddings=4096,
    )
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    rules = [mm.Rule(f"*.{name}_proj.weight", split=mm.Split()) for name in "qkv"]
    return _without_numbers(network), (layers, width, config.max_position_embeddings), rules


def _without_numbers(network: nn.Module) -> nn.Module:
    """The network with parameters that are one zero, seen in every entry: `assign` reads shapes, and asks for memory."""
    found: dict[nn.Parameter, nn.Parameter] = {}
    for module in network.modules():
        for name, each in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            alike = found.setdefault(each, nn.Parameter(torch.zeros(()).expand(each.shape)))
            setattr(module, name, alike)
    return network


def _shape_only(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, device="meta")


MODELS: Final[dict[str, Callable[[], Built]]] = {
    "gpt2": lambda: _gpt2(12, 768, 12),
    "gpt2-xl": lambda: _gpt2(48, 1600, 25),
    "llama2-7b": lambda: _llama(32, 4096, 11008, 32),
}
"""Networks of transformers, their sizes, and the rules that keep queries, keys and values whole."""

"""Small plain models, batches and training steps, shared by the tests that adapt a model and train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import modular_manifolds as mm


def mlp() -> nn.Sequential:
    """A perceptron with a matrix, a norm with gain and bias, and a head."""
    return nn.Sequential(
        nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )


class Attentive(nn.Module):
    """Fused queries, keys and values, whose pieces share one stored tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        # Tokens that differ: attention over equal ones does not depend on queries and keys.
        x = torch.stack([self.embed(x), self.embed(-x), x[:, :8]], dim=1)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


class Transformer(nn.Module):
    """GPT-2 of transformers, whose fused weights are stored as (in, out), with a head."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        sizes = GPT2Config(vocab_size=24, n_positions=12, n_embd=8, n_head=2, n_layer=1)
        sizes.resid_pdrop = sizes.embd_pdrop = sizes.attn_pdrop = 0.0
        self.body = GPT2Model(sizes)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = 2 * torch.arange(12) + (x > 0)
        return self.head(self.body(tokens).last_hidden_state.mean(dim=1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "attentive": Attentive,
    "transformer": Transformer,
}

RULES: Sequence[mm.Rule | mm.Fallback] = (mm.Fallback("*bias", lr=1e-2), mm.Rule("*"))
"""Geometry for everything but biases, which AdamW steps: both kinds of groups are in every test."""


def batch(number: int) -> tuple[Tensor, Tensor]:
    """The same inputs and labels for a number at every call."""
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(number))
    return x, x[:, :3].argmax(dim=1)


def backward(model: nn.Module, number: int = 0) -> float:
    """Add the gradients of the loss on a batch."""
    x, labels = batch(number)
    loss = nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), labels)
    loss.backward()
    return loss.item()


def train(model: nn.Module, opt: torch.optim.Optimizer, numbers: Sequence[int]) -> list[float]:
    """One step a batch; the losses."""
    losses: list[float] = []
    for number in numbers:
        opt.zero_grad()
        losses.append(backward(model, number))
        opt.step()
    return losses


def adapted(model: nn.Module, **how: Any) -> mm.SteepestDescent:
    """An optimiser with momentum on an adapted model."""
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, **how}
    return mm.SteepestDescent(mm.adapt(model, RULES), **settings)


def residual(plan: mm.ModelPlan) -> float:
    """The largest distance of a weight from its manifold."""
    return max(row.residual for row in mm.conditioning(plan).rows)


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models have the same weights and buffers, bit for bit."""
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())

"""The GPT of modded-nanogpt's track 3, whose architecture every entry shares; written anew from its description.

Pre-norm blocks with learned gains; queries and keys are normalised and half of their features are rotated; squared ReLU;
biases everywhere; a head of its own; logits softly capped at 15. The embedding is stored in bfloat16, and all products are
computed in the dtype of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION_SCALE = 0.12
"""The factor on the scores of attention."""

LOGIT_CAP = 15.0
"""The size that logits approach."""

LOWEST_FREQUENCY = 1 / 1024
"""The rotation of the slowest rotated pair of features, in radians a token."""


@dataclass(frozen=True)
class Size:
    """The sizes of a model and its batches.

    Args:
        vocabulary: the number of tokens that the model knows.
        depth: the number of blocks.
        width: the number of features.
        head: the number of features of an attention head.
        context: the tokens of a window.
        batch: the windows of a step, over all processes.
        micro: the windows of one forward pass.
        valid: the windows of validation, over all processes.
    """

    vocabulary: int = 50304
    depth: int = 12
    width: int = 768
    head: int = 128
    context: int = 1024
    batch: int = 512
    micro: int = 64
    valid: int = 10240


class Linear(nn.Linear):
    """A linear layer with weights in float32 that multiplies in the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        weight, bias = self.weight.type_as(input), self.bias.type_as(input)
        return functional.linear(input, weight, bias)


class RMSNorm(nn.Module):
    """Features divided by their rms, times learned gains."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self.gains.type_as(x))


class Attention(nn.Module):
    """Causal attention with normalised and rotated queries and keys."""

    frequencies: Tensor

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = width // head, head
        self.q, self.k, self.v = (Linear(width, width) for _ in range(3))
        self.proj = Linear(width, width)
        rotated = LOWEST_FREQUENCY ** torch.linspace(0, 1, head // 4)
        still = torch.zeros(head // 4)
        self.register_buffer("frequencies", torch.cat((rotated, still)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            each(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for each in (self.q, self.k, self.v)
        )
        q, k = (self._rotated(functional.rms_norm(each, each.shape[-1:])) for each in (q, k))
        mixed = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=ATTENTION_SCALE
        )
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _rotated(self, x: Tensor) -> Tensor:
        """Pairs of features (i, i + half) turned by their frequency times the position."""
        places = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
        angles = torch.outer(places, self.frequencies)
        first, second = x.float().chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        turned = (first * cos + second * sin, second * cos - first * sin)
        return torch.cat(turned, dim=-1).type_as(x)


class Block(nn.Module):
    """Attention and a perceptron, each added to its input."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.attn = RMSNorm(size.width), Attention(size.width, size.head)
        self.norm2 = RMSNorm(size.width)
        self.mlp = nn.ModuleDict(
            {"fc": Linear(size.width, 4 * size.width), "proj": Linear(4 * size.width, size.width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["proj"](self.mlp["fc"](self.norm2(x)).relu().square())


class GPT(nn.Module):
    """Logits from tokens of shape (batch, context); with targets, the sum of their cross entropies."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = nn.Embedding(size.vocabulary, size.width, dtype=torch.bfloat16)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm1, self.norm2 = RMSNorm(size.width), RMSNorm(size.width)
        self.proj = Linear(size.width, size.vocabulary)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.norm1(self.embed(tokens))
        for block in self.blocks:
            x = block(x)
        logits = self.proj(self.norm2(x)).float()
        logits = LOGIT_CAP * logits * (logits.square() + LOGIT_CAP**2).rsqrt()
        if targets is None:
            return logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


@torch.no_grad()
def initialise_(model: nn.Module, *, head_at_zero: bool, projections_at_zero: bool) -> None:
    """Draw fresh weights: standard normal embeddings, matrices of torch's usual size, and biases at zero.

    The track's baseline starts the head and the residual projections at zero. A matrix on a manifold of fixed size cannot
    be zero.
    """
    for name, weight in model.named_parameters():
        at_zero = head_at_zero if name == "proj.weight" else projections_at_zero
        if name == "embed.weight":
            weight.normal_()
        elif weight.dim() == 2 and not (at_zero and name.endswith("proj.weight")):
            weight.normal_(std=(3 * weight.shape[1]) ** -0.5)
        else:
            weight.fill_(1.0 if name.endswith("gains") else 0.0)

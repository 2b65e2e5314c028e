"""A GPT in the manner of nanoGPT, with its shared embedding and head, its initial weights and its names."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

HEAD_WIDTH = 16
"""The number of features of a head; a model of width w has w/16 heads."""


class CausalSelfAttention(nn.Module):
    """Attention to earlier positions, with queries, keys and values in one weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_head = max(1, width // HEAD_WIDTH)
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = (each.unflatten(-1, (self.n_head, -1)) for each in self.c_attn(x).chunk(3, dim=-1))
        q, k, v = (each.transpose(1, 2) for each in heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=False)
        self.attn = CausalSelfAttention(width)
        self.ln_2 = nn.LayerNorm(width, bias=False)
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(functional.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """Logits of the next token at every position, from tokens of shape (batch, length)."""

    def __init__(self, tokens: int, *, width: int, depth: int, context: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(tokens, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width, bias=False)
        self.lm_head = nn.Linear(width, tokens, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                additions = 2 * depth if name.endswith("c_proj.weight") else 1
                nn.init.normal_(weight, std=0.02 / math.sqrt(additions))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

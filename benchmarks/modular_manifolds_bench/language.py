"""The cost of composition: the language model compared with the same network in plain torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds_bench.recordings import Recordings
from modular_manifolds_bench.report import Row
from modular_manifolds_bench.timing import Contender, interleave

BAR = 1.1
VOCABULARY, WIDTH, DEPTH, HEADS = 65, 128, 4, 4
BATCH, CONTEXT = 16, 128
Scales = tuple[float, float, float]
SCALES: Final[Scales] = (128.0, 8.0, 4.0)
"""The scales of attention, of the logits, and of the branches."""
PLAIN: Final = "torch.nn"


class PlainAttention(nn.Module):
    """Causal attention, as one writes it with torch.nn."""

    def __init__(self, width: int, heads: int, context: int, scale: float) -> None:
        super().__init__()
        self.heads, self.features = heads, width // heads
        self.scale = scale / self.features
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        pairs = torch.arange(0, self.features, 2, dtype=torch.float64)
        angles = torch.outer(torch.arange(context).double(), 10000.0 ** (-pairs / self.features))
        self.cosines: Tensor
        self.sines: Tensor
        self.register_buffer("cosines", angles.cos().float())
        self.register_buffer("sines", angles.sin().float())

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each(x).unflatten(-1, (self.heads, self.features)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(
            self.turned(query), self.turned(key), value, is_causal=True, scale=self.scale
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        c, s = self.cosines[: x.shape[-2]], self.sines[: x.shape[-2]]
        return torch.cat((first * c - second * s, first * s + second * c), dim=-1)


class PlainGPT(nn.Module):
    """The network of `mm.models.GPT`, as one writes it with torch.nn."""

    def __init__(
        self, vocabulary: int, width: int, depth: int, heads: int, context: int, scales: Scales
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.attention = nn.ModuleList(
            PlainAttention(width, heads, context, scales[0]) for _ in range(depth)
        )
        self.up = nn.ModuleList(nn.Linear(width, 4 * width, bias=False) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * width, width, bias=False) for _ in range(depth))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.part, self.logit_scale = 1 / (2 * depth), scales[1]
        self.stretch = scales[2] * math.sqrt(2 * depth)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for attention, up, down in zip(self.attention, self.up, self.down, strict=True):
            x = torch.lerp(x, self.stretch / 3 * attention(x), self.part)
            x = torch.lerp(x, self.stretch * down(functional.relu(up(x))), self.part)
        return self.logit_scale * self.head(x)


def plain_twin(net: mm.Module, *, depth: int, heads: int, context: int, scales: Scales) -> PlainGPT:
    """`net`, a GPT without shared keys, in plain torch with the same weights."""
    weights = dict(net.named_parameters())
    vocabulary, width = weights["embedding.weight"].shape
    twin = PlainGPT(vocabulary, width, depth, heads, context, scales)
    with torch.no_grad():
        for mine, theirs in zip(weights.values(), twin_weights(twin), strict=True):
            theirs.copy_(mine.reshape(theirs.shape))
    return twin


def twin_weights(twin: PlainGPT) -> Iterator[Tensor]:
    """The weights in the order in which data meets them."""
    yield twin.embedding.weight
    for attention, up, down in zip(twin.attention, twin.up, twin.down, strict=True):
        yield from attention.parameters()
        yield from up.parameters()
        yield from down.parameters()
    yield twin.head.weight


def gpt_forward(recordings: Recordings) -> Iterator[Row]:
    """Forward and backward of the language model beside its twin."""
    settings = recordings.settings
    settings.watch("gpt-forward: recording")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = mm.models.GPT(
            VOCABULARY,
            width=WIDTH,
            depth=DEPTH,
            heads=HEADS,
            attention_scale=SCALES[0],
            logit_scale=SCALES[1],
            branch_scale=SCALES[2],
        )
        tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT))
        twin = plain_twin(net, depth=DEPTH, heads=HEADS, context=CONTEXT, scales=SCALES)
    contenders = [_contender("ours", net, tokens), _contender(PLAIN, twin, tokens)]
    timings = interleave(contenders, rounds=settings.rounds, seconds=settings.seconds)
    ratio = timings.ratio("ours", PLAIN)
    yield Row(
        "gpt-forward",
        f"GPT forward and backward / the same in torch.nn, width {WIDTH}, depth {DEPTH}, context {CONTEXT}",
        ours=timings.median("ours"),
        theirs=timings.median(PLAIN),
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        bar=f"≤ {BAR:g}",
        met=ratio.value <= BAR,
    )


def _contender(name: str, net: nn.Module, tokens: Tensor) -> Contender:
    targets = tokens.roll(-1, dims=1).flatten()

    def forget(number: int) -> None:
        del number
        net.zero_grad()

    def both_ways() -> None:
        functional.cross_entropy(net(tokens).flatten(0, 1), targets).backward()

    return Contender(name, forget, both_ways)

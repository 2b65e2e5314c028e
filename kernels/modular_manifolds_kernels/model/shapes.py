"""The hidden weights of two language models, (out, in), with how many of each there are."""

from __future__ import annotations

from typing import Final

Shapes = dict[tuple[int, int], int]


def gpt(width: int, layers: int) -> Shapes:
    """Query-key-value, projection, and the two matrices of the feed-forward part of every block.

    Embeddings are left out: they are not trained by the matrix sign.
    """
    return {
        (3 * width, width): layers,
        (width, width): layers,
        (4 * width, width): layers,
        (width, 4 * width): layers,
    }


MODELS: Final[dict[str, Shapes]] = {"GPT 124M": gpt(768, 12), "GPT 1.5B": gpt(1600, 48)}
"""Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), table 2."""

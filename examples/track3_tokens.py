"""Token shards in the format of modded-nanogpt: a header of 256 integers, then the tokens as 16-bit numbers.

The header holds 20240520, the version 1 and the number of tokens. Shards are read in the order of their names, and each
process reads its own slice of every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

MAGIC: Final = 20240520
"""The first number of a shard."""

VERSION: Final = 1
"""The second number of a shard."""

HEADER_NUMBERS: Final = 256
"""The 32-bit numbers of the header."""


def read_shard(file: Path) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """The tokens of a shard, as a view of the file."""
    header = np.fromfile(file, dtype=np.int32, count=HEADER_NUMBERS)
    if len(header) < HEADER_NUMBERS or header[0] != MAGIC or header[1] != VERSION:
        raise SystemExit(f"{file} must begin with {MAGIC} and version {VERSION}")
    tokens = np.memmap(file, dtype=np.uint16, mode="r", offset=4 * HEADER_NUMBERS)
    if len(tokens) != header[2]:
        raise SystemExit(f"{file} must hold {header[2]} tokens, and holds {len(tokens)}")
    return tokens


def write_shard(file: Path, tokens: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> None:
    """Write tokens as a shard."""
    header = np.zeros(HEADER_NUMBERS, dtype=np.int32)
    header[:3] = MAGIC, VERSION, len(tokens)
    file.write_bytes(header.tobytes() + tokens.astype(np.uint16).tobytes())


def shards(folder: Path, part: str) -> list[Path]:
    """The shards of a part, `train` or `val`."""
    found = sorted(folder.glob(f"*_{part}_*.bin"))
    if not found:
        raise SystemExit(f"--data must be a folder with *_{part}_*.bin, and {folder} has none")
    return found


def batches(
    files: Sequence[Path], *, tokens: int, context: int, rank: int, processes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of this process, shape (windows, context), shard after shard.

    Args:
        files: the shards.
        tokens: the tokens of a batch of all processes.
        context: the tokens of a window.
        rank: the number of this process.
        processes: the number of processes.
    """
    own = tokens // processes
    for file in files:
        shard = read_shard(file)
        for start in range(0, len(shard) - tokens, tokens):
            first = start + rank * own
            part = torch.from_numpy(shard[first : first + own + 1].astype(np.int64))
            yield part[:-1].view(-1, context), part[1:].view(-1, context)
    raise SystemExit(f"{len(files)} shards hold too few tokens for so many steps: add shards")


def write_synthetic(folder: Path, *, vocabulary: int, tokens: int) -> None:
    """Two shards to train on and one to validate on: a counter that sometimes jumps, which a small model can learn."""
    generator = np.random.default_rng(0)
    for name in ("synthetic_train_000001", "synthetic_train_000002", "synthetic_val_000000"):
        jumps = np.where(
            generator.random(tokens) < 0.1, generator.integers(vocabulary, size=tokens), 1
        )
        write_shard(folder / f"{name}.bin", (np.cumsum(jumps) % vocabulary).astype(np.uint16))

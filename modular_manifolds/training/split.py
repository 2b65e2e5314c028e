"""One part of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """`images` of shape (count, features), float32; `labels` of shape (count,), int64."""

    images: Tensor
    labels: Tensor

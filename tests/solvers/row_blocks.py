"""Processes that hold blocks of rows, played by threads that meet at every sum."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.linalg.surroundings import undisturbed

Result = TypeVar("Result")


class Meeting:
    """Sums of tensors over threads: each adds the same terms in the same order.

    Args:
        count: the number of threads.
    """

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=60)
        self._terms: list[Tensor] = [torch.empty(0)] * count
        self._local = threading.local()
        self.sums: list[tuple[tuple[int, ...], torch.dtype]] = []
        """Shape and dtype of every sum so far."""

    def total(self, x: Tensor) -> Tensor:
        i = self._local.rank
        self._terms[i] = x
        self._barrier.wait()
        if len({each.shape for each in self._terms} | {each.dtype for each in self._terms}) != 2:
            raise AssertionError("the processes sum different things")
        result = torch.stack(self._terms).sum(dim=0)
        if i == 0:
            self.sums.append((tuple(x.shape), x.dtype))
        self._barrier.wait()
        return result

    def run(self, work: Callable[[int, SharedRows], Result]) -> list[Result]:
        """The results of `work(rank, rows)`, by rank."""

        def play(rank: int) -> Result:
            self._local.rank = rank
            try:
                # A decorator of public functions; it looks for the device of a tensor among the arguments.
                return undisturbed(lambda _: work(rank, SharedRows(self.total)))(torch.empty(0))
            except BaseException:
                self._barrier.abort()
                raise

        count = len(self._terms)
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(play, range(count)))


def split(x: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    return [each.clone() for each in x.split(list(sizes), dim=dim)]

"""Processes that hold blocks of rows, played by threads that meet at every sum."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.linalg.surroundings import undisturbed
from modular_manifolds.solvers import SkewSign, Solution
from modular_manifolds.solvers.row_sharded import RowPlan, row_plan

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


ETA = 0.1


def plan_of(
    manifold: mm.Manifold, norm: mm.Norm, like: Tensor, solver: str | SkewSign = "auto"
) -> RowPlan:
    dim = sharded_dim(like)
    plan = row_plan(manifold, norm, tuple(like.shape), like.dtype, "cpu", dim=dim, solver=solver)
    assert plan is not None
    return plan


def sharded_dim(x: Tensor) -> int:
    return -1 if x.shape[-2] < x.shape[-1] else -2


def tall(x: Tensor) -> Tensor:
    return x.mT if sharded_dim(x) == -1 else x


def gradient(kind: str, w: Tensor) -> Tensor:
    like, n = tall(w), min(w.shape[-2:])
    g = torch.randn_like(like)
    match kind:
        case "rank two":
            g = g[..., : min(2, n)] @ torch.randn_like(g[..., : min(2, n), :])
        case "uneven":
            g = g * torch.logspace(0, -6, n, dtype=w.dtype)
        case "in the span":
            g = like @ torch.randn(n, n, dtype=w.dtype)
        case "tiny":
            g = g * torch.finfo(w.dtype).tiny
        case _:
            pass
    return g.mT if sharded_dim(w) == -1 else g


def stepped(
    plan: RowPlan, w: Tensor, g: Tensor, sizes: Sequence[int]
) -> tuple[Solution, Tensor, Meeting]:
    """The whole direction and the whole landing point of processes with so many rows, and their meeting."""
    dim, meeting = sharded_dim(w), Meeting(len(sizes))
    points, gradients = split(w, sizes, dim), split(g, sizes, dim)

    def step(rank: int, rows: SharedRows) -> tuple[Solution, Tensor]:
        found = plan.solve(points[rank], gradients[rank], rows)
        landed = plan.retract(points[rank], found.direction * ETA, ETA * plan.unit, rows)
        return found, landed

    results = meeting.run(step)
    for found, _ in results:
        assert torch.equal(found.gap, results[0][0].gap) or bool(found.gap.isnan().all())
    a = torch.cat([found.direction for found, _ in results], dim=dim)
    first = results[0][0]
    whole = Solution(a, first.gap, first.iterations, first.tolerance, shortfall=first.shortfall)
    return whole, torch.cat([landed for _, landed in results], dim=dim), meeting

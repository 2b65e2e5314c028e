"""The checks of processes that step tall matrices by rows: each runs in every process, and `test_row_training` compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from collective_counts import counting
from forked import long_tests_run, plain_tests_run
from sharding import full, full_state, placed_like, world_mesh
from torch import Tensor, nn
from torch.distributed.tensor import Shard, distribute_tensor
from trained import steps as usual_steps
from trained import way_of

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.solvers import SkewSign

STEPS: Final = 20

SHAPES: Final = {
    "tall": (41, 6),
    "twin": (41, 6),
    "wide": (5, 33),
    "square": (8, 8),
    "short": (5, 2),
}
PAIRS: Final[dict[str, tuple[mm.Manifold, mm.Norm]]] = {
    "stiefel": (mm.Stiefel(radius=1.5), mm.RMSOperator()),
    "muon": (mm.Euclidean(), mm.RMSOperator()),
    "ball": (mm.SpectralBall(radius=1.2), mm.Spectral()),
}


class Trained:
    """Matrices of one geometry, whole or split along their longer sides, and their optimiser."""

    def __init__(self, pair: str, *, sharded: bool, dtype: torch.dtype, **options: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        manifold, norm = PAIRS[pair]
        self.parameters: dict[str, Tensor] = {}
        self.targets: dict[str, Tensor] = {}
        mesh = world_mesh(dist.get_world_size())
        for name, shape in SHAPES.items():
            whole = manifold.random(shape, generator=generator).to(dtype)
            self.targets[name] = torch.randn(shape, generator=generator)
            if sharded:
                dim = 0 if shape[0] >= shape[1] else 1
                whole = distribute_tensor(whole, mesh, [Shard(dim)], src_data_rank=None)
            self.parameters[name] = nn.Parameter(whole)
            self.targets[name] = placed_like(whole, self.targets[name])
        group = {"params": list(self.parameters.items()), "manifold": manifold, "norm": norm}
        self.opt = mm.SteepestDescent(
            [group], 0.05, **{"momentum": 0.9, "nesterov": True, **options}
        )

    def give_gradients(self, step: int, *, resting: str = "") -> None:
        """Gradients that pull to targets, of the present weights, with noise."""
        generator = torch.Generator().manual_seed(step)
        for name, each in self.parameters.items():
            noise = placed_like(each, torch.randn(each.shape, generator=generator))
            gradient = each.detach().float() - self.targets[name] + noise
            each.grad = gradient.to(each.dtype) * (name != resting)

    def train(self, steps: int = STEPS, **options: Any) -> Any:
        for step in range(steps):
            self.give_gradients(step, **options)
            self.opt.step()
        return {name: full(each) for name, each in self.parameters.items()}


@contextmanager
def digests() -> Iterator[list[str]]:
    """While inside, the bits of every sum are written down."""
    seen: list[str] = []
    all_reduce: Any = dist.all_reduce

    def reduced(x: Tensor, *rest: Any, **named: Any) -> Any:
        result = all_reduce(x, *rest, **named)
        seen.append(hashlib.sha256(x.numpy().tobytes()).hexdigest())
        return result

    dist.all_reduce = reduced
    try:
        yield seen
    finally:
        dist.all_reduce = all_reduce


def _both(
    pair: str, dtype: torch.dtype = torch.float32, steps: int = STEPS, **options: Any
) -> dict[str, Any]:
    alone = Trained(pair, sharded=False, dtype=dtype, **options)
    rows = Trained(pair, sharded=True, dtype=dtype, owner="rows", **options)
    with digests() as seen:
        weights = rows.train(steps)
    rows.give_gradients(steps)
    with counting() as counts:
        rows.opt.step()
    gaps = {name: each.gap for name, each in rows.opt.diagnoses.items()}
    return {
        "alone": alone.train(steps),
        "rows": weights,
        "state": full_state(rows.opt),
        "digests": seen,
        "counts": counts,
        "placement": rows.opt.placement,
        "gaps": gaps,
    }


def check_rows_trained() -> Any:
    found: dict[str, Any] = {}
    if plain_tests_run():
        many = usual_steps()
        found["stiefel"] = _both("stiefel", steps=many, solver=SkewSign(tolerance=1e-6))
        found["bfloat16"] = _both("muon", torch.bfloat16, steps=5, weight_decay=0.1)
    if long_tests_run():
        found |= {pair: _both(pair) for pair in ("muon", "ball")}
        found["default"] = _both("stiefel")
    return found


def check_rows_empty() -> Any:
    """Five rows of two columns on four processes: the last one has none."""
    return _both("stiefel", steps=5, solver=SkewSign(tolerance=1e-6))


def check_rows_without_host_reads() -> Any:
    """The way of an accelerator, and a weight whose gradient is zero; then a gradient that is not finite."""
    rows = Trained("stiefel", sharded=True, dtype=torch.float32, owner="rows")
    start = full(rows.parameters["twin"])
    with way_of("device"):
        rows.train(5, resting="twin")
        rows.opt.check()
        before = {name: full(each) for name, each in rows.parameters.items()}
        state = full_state(rows.opt)
        rows.give_gradients(STEPS)
        gradient: Any = rows.parameters["wide"].grad
        if dist.get_rank() == 1:
            gradient.to_local()[0, 0] = torch.nan
        rows.opt.step()
        try:
            rows.opt.check()
            error = None
        except ArgumentError as caught:
            error = caught.argument
    after = {name: full(each) for name, each in rows.parameters.items()}
    decaying = Trained("muon", sharded=True, dtype=torch.float32, owner="rows", weight_decay=0.1)
    resting = {name: full(each) for name, each in decaying.parameters.items()}
    decaying.give_gradients(0)
    gradient = decaying.parameters["wide"].grad
    gradient.to_local().fill_(torch.inf)
    with way_of("device"):
        decaying.opt.step()
    before |= {f"decaying {name}": each for name, each in resting.items()}
    after |= {f"decaying {name}": full(each) for name, each in decaying.parameters.items()}
    return {
        "start": start,
        "before": before,
        "after": after,
        "state": (state, full_state(rows.opt)),
        "error": error,
    }


def check_rows_choice() -> Any:
    """Ways by name and by cost, and the refusals."""
    ways: dict[str, Any] = {}
    for owner in ("auto", "rows", "gather"):
        placement: Any = Trained(
            "stiefel", sharded=True, dtype=torch.float32, owner=owner
        ).opt.placement
        ways[owner] = {each.name: each.way for each in placement.ways}
    mesh = world_mesh(dist.get_world_size())
    very_tall = distribute_tensor(
        mm.Stiefel().random((2**17, 8)), mesh, [Shard(0)], src_data_rank=None
    )
    group = {
        "params": [("w", nn.Parameter(very_tall))],
        "manifold": mm.Stiefel(),
        "norm": mm.Spectral(),
    }
    ways["very tall"] = mm.SteepestDescent([group], 0.1).placement
    ways["printed"] = str(ways["very tall"])
    opt: Any = mm.SteepestDescent([group], 0.1, momentum=0.9, owner="rows")
    opt.param_groups[0]["tangent_momentum"] = True
    weight = opt.param_groups[0]["params"][0]
    weight.grad = placed_like(weight, torch.ones(weight.shape))
    opt.step()
    ways["later"] = opt.placement.ways[0].way
    errors = []
    for door in (
        lambda: Trained("stiefel", sharded=True, dtype=torch.float32, owner="replicate"),
        lambda: Trained("stiefel", sharded=False, dtype=torch.float32, owner="rows"),
        lambda: Trained(
            "stiefel", sharded=True, dtype=torch.float32, owner="rows", tangent_momentum=True
        ),
    ):
        try:
            door()
        except ArgumentError as error:
            errors.append(str(error))
    return ways, errors

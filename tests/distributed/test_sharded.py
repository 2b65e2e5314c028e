"""Sharded weights in one process: every door takes DTensors, and refuses other placements in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import (
    HashStore,  # pyright: ignore[reportPrivateImportUsage]
    destroy_process_group,
    init_process_group,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.placement_types import (
    _StridedShard,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.parallel import DistributedDataParallel

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        destroy_process_group()


def mesh(*shape: int) -> DeviceMesh:
    return init_device_mesh("cpu", shape or (1,))


def matrices() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))


def as_dtensor(model: nn.Sequential, placed: Any) -> None:
    """Give the first weight one placement, whatever its values mean then."""
    weight = model.get_parameter("0.weight").detach()
    tensor = DTensor.from_local(weight, mesh(*[1] * len(placed)), placed, run_check=False)
    model[0].register_parameter("weight", nn.Parameter(tensor))


def whole(model: nn.Module) -> list[Tensor]:
    tensors = [each.detach() for each in model.parameters()]
    return [each.full_tensor() if isinstance(each, DTensor) else each for each in tensors]


DOORS: dict[str, Callable[[nn.Module], Any]] = {
    "plan": lambda model: mm.SteepestDescent(mm.adapt(model, progress=False), 0.1),
    "group": lambda model: mm.SteepestDescent(
        [{"params": model.named_parameters(), "manifold": mm.Euclidean(), "norm": mm.Spectral()}],
        0.1,
    ),
    "Muon": lambda model: mm.optim.Muon(model.parameters()),
    "ManifoldMuon": lambda model: mm.optim.ManifoldMuon(model.parameters()),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_dtensors(door: str) -> None:
    results: list[list[Tensor]] = []
    for shard in (False, True):
        model = matrices()
        if shard:
            fully_shard(model, mesh=mesh())
        opt = DOORS[door](model)
        for _ in range(2):
            opt.zero_grad()
            model(torch.eye(4)).square().sum().backward()
            opt.step()
        results.append(whole(model))
        assert str(opt.placement).startswith("sharded over 1" if shard else "one process")
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("placed", [[Partial()], [_StridedShard(0, split_factor=2)]], ids=str)
def test_other_placements_are_refused(placed: Any) -> None:
    model = matrices()
    as_dtensor(model, placed)
    with pytest.raises(ArgumentError, match=r"the weight '0\.weight' with placements") as caught:
        mm.SteepestDescent(
            [{"params": model.named_parameters(), "manifold": mm.Euclidean(), "norm": mm.Max()}],
            0.1,
        )
    assert "redistribute" in caught.value.remedy


def test_an_owner_is_refused() -> None:
    model = matrices()
    fully_shard(model, mesh=mesh())
    with pytest.raises(ArgumentError, match=r"SteepestDescent\(owner\) must be 'auto'"):
        mm.optim.Muon(model.parameters(), owner="replicate")


def test_data_parallel_around_shards_is_refused() -> None:
    net = mm.Linear(4, 4) >> mm.ReLU() >> mm.Linear(4, 4)
    wrapped: Any = DistributedDataParallel(net)
    fully_shard(net, mesh=mesh())
    with pytest.raises(ArgumentError, match="must not be inside DistributedDataParallel"):
        mm.SteepestDescent(wrapped, 0.1)


def test_a_sharded_average_is_projected() -> None:
    net = mm.Linear(4, 4)
    for placement in (Shard(0), Replicate()):
        averaged = {"weight": distribute_tensor(2 * net.weight.detach(), mesh(), [placement])}
        mm.project_(net, averaged)
        torch.testing.assert_close(averaged["weight"].full_tensor(), net.weight.detach())


def test_fsdp_of_the_first_kind_is_refused() -> None:
    wrapped = FullyShardedDataParallel(
        nn.Sequential(nn.Linear(4, 4, bias=False)),
        sharding_strategy=ShardingStrategy.NO_SHARD,
        device_id=torch.device("cpu"),
    )
    with pytest.raises(ArgumentError, match="got FullyShardedDataParallel"):
        mm.adapt(wrapped, progress=False)
    with pytest.raises(ArgumentError, match="flat parameter of FSDP"):
        mm.optim.HypersphericalDescent(wrapped.parameters(), 0.1)

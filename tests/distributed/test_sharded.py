"""Sharded weights are refused in words, before anything moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import (
    HashStore,  # pyright: ignore[reportPrivateImportUsage]
    destroy_process_group,
    init_process_group,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        destroy_process_group()


def fsdp2(model: nn.Module) -> None:
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


def tensor_parallel(model: nn.Module) -> None:
    parallelize_module(model, init_device_mesh("cpu", (1,)), {"0": ColwiseParallel()})


DOORS: dict[str, Callable[[nn.Module], Any]] = {
    "adapt(model)": lambda model: mm.adapt(model, progress=False),
    "SteepestDescent(params): group 0": lambda model: mm.SteepestDescent(
        [{"params": model.named_parameters(), "manifold": mm.Euclidean(), "norm": mm.Spectral()}],
        0.1,
    ),
    "Muon(params): group 0": lambda model: mm.optim.Muon(model.parameters()),
    "ManifoldMuon(params): group 0": lambda model: mm.optim.ManifoldMuon(model.parameters()),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shard", [fsdp2, tensor_parallel])
def test_every_door_refuses_dtensors(door: str, shard: Callable[[nn.Module], None]) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    shard(model)
    before = [each.full_tensor() for each in model.parameters() if isinstance(each, DTensor)]
    with pytest.raises(ArgumentError) as caught:
        DOORS[door](model)
    error = caught.value
    assert error.argument == door
    assert error.rule.startswith("must hold whole weights")
    assert str(error.seen).endswith("as a DTensor, S(0)")
    assert "DistributedDataParallel" in error.remedy
    after = [each.full_tensor() for each in model.parameters() if isinstance(each, DTensor)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_that_is_sharded_after_its_plan_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    plan = mm.adapt(model, progress=False)
    fsdp2(model)
    for argument, door in {
        "SteepestDescent(net)": lambda: mm.SteepestDescent(plan, 0.1),
        "project_(net)": lambda: mm.project_(plan),
        "from_json(model)": lambda: type(plan).from_json(plan.to_json(), model),
    }.items():
        with pytest.raises(ArgumentError, match="must hold whole weights") as caught:
            door()
        assert caught.value.argument == argument


def test_a_declared_network_that_is_sharded_is_refused() -> None:
    net = mm.Linear(4, 4) >> mm.ReLU() >> mm.Linear(4, 4)
    fsdp2(net)
    for door in (lambda: mm.SteepestDescent(net, 0.1), lambda: mm.project_(net)):
        with pytest.raises(ArgumentError, match=r"'0\.weight' as a DTensor"):
            door()


def test_a_sharded_average_is_refused() -> None:
    net = mm.Linear(4, 4)
    mesh = init_device_mesh("cpu", (1,))
    for placement in (Shard(0), Replicate()):
        averaged = {"weight": distribute_tensor(net.weight.detach(), mesh, [placement])}
        with pytest.raises(ArgumentError, match=r"project_\(averaged\) must hold whole weights"):
            mm.project_(net, averaged)


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

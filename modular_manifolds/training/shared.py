"""The network of a run as its processes share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modular_manifolds.nn import Module
from modular_manifolds.training.processes import Processes


def shared(net: Module, processes: Processes) -> nn.Module:
    """The module whose backward pass averages the gradients of all processes; `net` itself for one process.

    Every process then has the weights of process 0.
    """
    if processes.parallel == "none":
        return net
    device = next(net.parameters()).device
    return DistributedDataParallel(net, device_ids=None if device.type == "cpu" else [device])


def settle_buckets(model: nn.Module, inputs: Tensor) -> None:
    """Run one backward pass whose gradients are thrown away. Random numbers are as if it had not been.

    DistributedDataParallel sorts its gradients anew after the first pass, and the order in which gloo adds depends on
    their places. Now all steps of a run have the same order, so a resumed run takes the same bits.
    """
    devices = [] if inputs.device.type == "cpu" else [inputs.device]
    with torch.random.fork_rng(devices):
        model(inputs).sum().backward()
    model.zero_grad()

"""The settings of torch that a run computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from modular_manifolds.specs import RunSpec


@contextmanager
def surroundings(spec: RunSpec) -> Iterator[None]:
    """While inside, torch computes as the run says, whatever the calling program has set.

    The number of threads is the run's, because another one rounds differently. Tensors are float32 unless code names
    another dtype, autocast is off, and gradients are recorded.
    """
    with ExitStack() as stack:
        before = torch.get_num_threads()
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(spec.threads or before)
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        for device in {"cpu", torch.device(spec.device).type}:
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.enable_grad())
        yield

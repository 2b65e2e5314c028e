"""The device that a run computes on."""

from __future__ import annotations

import torch

from modular_manifolds.errors import SpecError


def device_of(name: str) -> torch.device:
    """The device with this name.

    Raises:
        SpecError: this machine does not have the device.
    """
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SpecError(
            "device",
            "must be a device that torch finds on this machine",
            f"{name} with {count} GPUs found",
            "Write cpu, or install torch with CUDA on a machine with a GPU.",
        )
    return device


def gpu_name(name: str) -> str | None:
    """The model name of a run's GPU; None on the CPU."""
    device = torch.device(name)
    return None if device.type == "cpu" else torch.cuda.get_device_name(device)

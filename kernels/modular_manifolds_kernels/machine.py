"""The device that runs the kernels, and the launch of a kernel with its configuration."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds_kernels.shipped import KERNELS, Configuration

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TRITON = importlib.util.find_spec("triton") is not None
"""Whether Triton can be imported. It is a constant for compilers, and checking it does not import Triton."""

GRID_MAX_PROGRAMS = (1 << 31) - 1
"""The largest number of programs on a grid's first axis."""


@dataclass(frozen=True)
class Machine:
    """A target of the table of configurations, and the kernels.

    Args:
        target: one of `shipped.TARGETS`.
        kernels: the Triton functions by name.
    """

    target: str
    kernels: Mapping[str, Any]

    def launch(self, row: Configuration, grid: tuple[int], *arguments: object) -> None:
        """Launch the kernel of `row` with its compile-time arguments, warps and stages.

        `arguments` are all other arguments in order. Triton itself specialises on strides of 1. A grid has one axis,
        because the other axes are limited to 65,535 programs, and a stack may be deeper.

        Raises:
            ValueError: there are more programs than `GRID_MAX_PROGRAMS`.
        """
        if grid[0] > GRID_MAX_PROGRAMS:
            raise ValueError(
                f"a stack must make at most {GRID_MAX_PROGRAMS:,} programs of {row.kernel},"
                f" got {grid[0]:,}. Pass fewer matrices at a time."
            )
        self.kernels[row.kernel][grid](
            *arguments, **row.constexprs, num_warps=row.warps, num_stages=row.stages
        )


@functools.cache
def machine_of(index: int) -> Machine:
    """The machine for the CUDA or ROCm device with this index.

    Raises:
        RuntimeError: the table has no rows for the device.
    """
    target = _target(index)
    if target is None:
        raise RuntimeError(f"no kernels: {_unknown(index)}")
    return Machine(target, KERNELS)


def why_not(x: Tensor) -> str | None:
    """The reason why the kernels cannot be used for `x`, as a sentence; None if they can.

    If torch sees no device, a cuda tensor is a fake one, for which the answer is None.
    """
    return why_not_on(x.device.type, x.dtype, index=x.device.index)


def why_not_on(device_type: str, dtype: torch.dtype, *, index: int | None = None) -> str | None:
    """The reason for tensors of this dtype on a device (by default the current one); None if kernels can be used."""
    if device_type != "cuda":
        return f"the tensor is on {device_type}, and Triton kernels run on cuda devices only"
    if dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, and the tensor is {dtype}"
    return _why_not_here(index)


def _why_not_here(index: int | None) -> str | None:
    """The reason that depends only on the installation and the device; None if there is none."""
    if not TRITON:
        return "Triton is not installed; it comes with torch's CUDA wheels"
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.current_device() if index is None else index
    return None if _target(device) is not None else _unknown(device)


def _target(index: int) -> str | None:
    """The target for this device: its architecture or the nearest older one of its family."""
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        return "gfx942" if properties.gcnArchName.startswith("gfx94") else None
    # The rows of sm_80 fit the smaller shared memory of 8.6, 8.9 and 12.0 as well.
    return {8: "sm_80", 9: "sm_90", 10: "sm_100", 12: "sm_80"}.get(properties.major)


def _unknown(index: int) -> str:
    return (
        f"the table of the kernels has no column for {torch.cuda.get_device_name(index)}:"
        " it knows compute capability 8, 9, 10 and 12, and gfx942"
    )

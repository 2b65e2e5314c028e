"""The machine that runs the kernels, and the launch of a kernel from its row of the table."""

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
"""Whether Triton can be imported. Found out without importing it, once: compilers read it as a constant."""

MOST_PROGRAMS = (1 << 31) - 1
"""The length of a grid's first axis."""


@dataclass(frozen=True)
class Machine:
    """A column of the table, and the functions it launches.

    Args:
        target: one of `shipped.TARGETS`.
        kernels: the Triton functions by name.
    """

    target: str
    kernels: Mapping[str, Any]

    def launch(self, row: Configuration, grid: tuple[int], *arguments: object) -> None:
        """Launch the kernel of `row` with its compile-time arguments, warps and stages.

        `arguments` are all others in order. Strides that are 1 are found out by Triton itself. A grid
        has one axis: the others end at 65,535, and a stack may be deeper.

        Raises:
            ValueError: there are more programs than that axis has numbers for.
        """
        if grid[0] > MOST_PROGRAMS:
            raise ValueError(
                f"a stack must make at most {MOST_PROGRAMS:,} programs of {row.kernel},"
                f" got {grid[0]:,}. Pass fewer matrices at a time."
            )
        self.kernels[row.kernel][grid](
            *arguments, **row.constexprs, num_warps=row.warps, num_stages=row.stages
        )


@functools.cache
def machine_of(index: int) -> Machine:
    """The machine that the CUDA or ROCm device with this index is.

    Raises:
        RuntimeError: the table has no column for it.
    """
    target = _target(index)
    if target is None:
        raise RuntimeError(f"no kernels: {_unknown(index)}")
    return Machine(target, KERNELS)


def why_not(x: Tensor) -> str | None:
    """Why the kernels cannot be used for `x`, in a sentence; None when they can.

    If torch sees no device at all, a tensor on one is a fake that only has a shape: it may pass.
    """
    return why_not_on(x.device.type, x.dtype, index=x.device.index)


def why_not_on(device_type: str, dtype: torch.dtype, *, index: int | None = None) -> str | None:
    """The same for tensors of this dtype on a device, the current one unless `index` names another."""
    if device_type != "cuda":
        return f"the tensor is on {device_type}, and Triton kernels run on cuda devices only"
    if dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, and the tensor is {dtype}"
    return _why_not_here(index)


def _why_not_here(index: int | None) -> str | None:
    """The part of the answer that depends on the installation and the device alone."""
    if not TRITON:
        return "Triton is not installed; it comes with torch's CUDA wheels"
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.current_device() if index is None else index
    return None if _target(device) is not None else _unknown(device)


def _target(index: int) -> str | None:
    """The column of the table for this device: that of the nearest older architecture of its family."""
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

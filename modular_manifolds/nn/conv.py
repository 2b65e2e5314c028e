"""The convolution of images, an atom."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space
from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.convolution import convolution_norm
from modular_manifolds.linalg.rounding import largest_singular_value
from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom
from modular_manifolds.nn.matrix import product_rounding
from modular_manifolds.nn.windows import Pair, Windows
from modular_manifolds.norms import Norm, Spectral


class Conv2d(Atom):
    """`conv2d(x, W)/√overlap` with zero padding and no bias; torch's convolution up to the factor.

    Images are passed between modules as vectors: `(*batch, in_channels · height · width)` to
    `(*batch, out_channels · height' · width')`, both in l2. `unflatten(-1, (channels, height, width))` gives the image.

    The weight is the matrix (out_channels, in_channels · kernel height · kernel width) that maps the window
    around a pixel to the pixel. With groups it is a stack of such matrices, one for each group. Each matrix is on the
    manifold. `conv2d(x, W) = W · windows(x)`, block diagonal over the groups. An entry of x lies in at most
    `min(⌈kernel/stride⌉, outputs)` windows in each direction; `overlap` is the product over the two directions. So
    `‖windows(x)‖₂ ≤ √overlap ‖x‖₂`, and the map has sensitivity `σ_max(W)`, the largest over the groups, and κ = 1.
    Certified: the smaller of `σ_max(W)` and the norm of the convolution on a torus.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output.
        kernel_size: the size of a window: one number for both directions, or (height, width).
        stride: the distance between two windows, in the same form.
        padding: the number of zeros at each edge, in the same form.
        size: the image's size, in the same form.
        groups: the number of independent groups of channels.
        manifold: the geometry of each matrix.
        norm: as `manifold`.
        mass: the share of the learning; 0 freezes the weight.

    Raises:
        ArgumentError: a number is out of range, or no window fits.
        UnsupportedPairError: the pair of manifold and norm has no solver.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        manifold: Manifold | None = None,
        norm: Norm | None = None,
        mass: float = 1.0,
    ) -> None:
        in_channels = check_count(in_channels, argument="Conv2d(in_channels)", what="channels")
        out_channels = check_count(out_channels, argument="Conv2d(out_channels)", what="channels")
        groups = check_count(groups, argument="Conv2d(groups)", what="groups")
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                "Conv2d(groups)",
                "must divide both numbers of channels",
                f"{groups} of {in_channels} and {out_channels}",
                "Pass a common divisor.",
            )
        windows = Windows.of(
            "Conv2d", size=size, kernel_size=kernel_size, stride=stride, padding=padding
        )
        geometry = Geometry(
            Stiefel() if manifold is None else manifold, Spectral() if norm is None else norm
        )
        matrix = (out_channels // groups, in_channels // groups * windows.entries)
        bound = geometry.operator_bound(matrix, "l2", "l2")
        constant = geometry.norm_constant(matrix, "l2", "l2")
        super().__init__(
            geometry=geometry,
            shape=matrix if groups == 1 else (groups, *matrix),
            source=Space(in_channels * math.prod(windows.size)),
            target=Space(out_channels * math.prod(windows.outputs)),
            sensitivity=bound if math.isfinite(bound) else constant,
            lipschitz=bound,
            norm_constant=constant,
            mass=mass,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.windows = windows
        self.scale: float = 1 / math.sqrt(windows.overlap)

    def arguments(self) -> dict[str, object]:
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            **self.windows.arguments(),
            "padding": self.windows.padding,
            "groups": self.groups,
            "manifold": self.geometry.manifold,
            "norm": self.geometry.norm,
            "mass": self.mass,
        }

    @property
    def output_size(self) -> Pair:
        """(height, width) of the output images."""
        return self.windows.outputs

    def lipschitz_at(self, largest_singular_value: float) -> float:
        return largest_singular_value

    def certified(self) -> float:
        kernel = self.weight.reshape(
            self.groups, -1, self.in_channels // self.groups, *self.windows.kernel
        )
        torus = convolution_norm(
            kernel,
            size=self.windows.size,
            stride=self.windows.stride,
            padding=self.windows.padding,
        )
        return min(largest_singular_value(self.weight), torus * self.scale * (1 + 2.0**-50))

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # Each entry is a sum of products with a scaled weight, which is rounded twice. The error is at most
        # γ (|W| * |x|) in any order of summation, but not for the Winograd and FFT algorithms.
        return product_rounding(self.weight, self.weight.shape[-1] + 2, dtype) * radius

    def describe(self) -> str:
        return f"Conv2d({self.in_channels}, {self.out_channels}, {self.windows.kernel})"

    def forward(self, x: Tensor) -> Tensor:
        images = self.windows.images(x, self.in_channels, argument="Conv2d(x)")
        kernel = (self.scale * self.weight).reshape(
            self.out_channels, self.in_channels // self.groups, *self.windows.kernel
        )
        y = functional.conv2d(
            images, kernel, None, self.windows.stride, self.windows.padding, 1, self.groups
        )
        return self.windows.vectors(y, like=x)

"""Convolutions: their values, their constants against the dense matrix, and their weights as stacks."""

from __future__ import annotations

import copy
import math
from typing import Any

import cases
import pytest
import torch
from convolutions import dense
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.convolution import convolution_norm
from modular_manifolds.nn.windows import Windows

Pair = tuple[int, int]


def pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def convolutions(draw: st.DrawFn) -> mm.Conv2d:
    """A convolution in float64 with a weight of any size, off its manifold."""
    groups = draw(st.integers(1, 2))
    padding = draw(pairs(0, 3))
    size = draw(pairs(1, 6))
    kernel = tuple(
        draw(st.integers(1, min(4, n + 2 * p))) for n, p in zip(size, padding, strict=True)
    )
    conv = mm.Conv2d(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        (kernel[0], kernel[1]),
        size=size,
        stride=draw(pairs(1, 3)),
        padding=padding,
        groups=groups,
    ).double()
    with torch.no_grad():
        conv.weight.normal_().mul_(draw(st.floats(0.01, 100)))
        if draw(st.booleans()):
            conv.weight.abs_()
    return conv


@given(conv=convolutions())
def test_a_convolution_is_torch_s_over_the_root_of_the_overlap(conv: mm.Conv2d) -> None:
    twin = torch.nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.windows.kernel,
        conv.windows.stride,
        conv.windows.padding,
        groups=conv.groups,
        bias=False,
        dtype=torch.float64,
    )
    with torch.no_grad():
        twin.weight.copy_(conv.weight.reshape(twin.weight.shape))
    images = torch.randn(2, 3, conv.in_channels, *conv.windows.size, dtype=torch.float64)
    wanted = twin(images.flatten(0, 1)) / math.sqrt(conv.windows.overlap)
    assert wanted.shape[-2:] == conv.output_size
    found = conv(images.flatten(-3))
    torch.testing.assert_close(found, wanted.flatten(1).unflatten(0, (2, 3)))
    torch.testing.assert_close(conv(images[0, 0].flatten()), found[0, 0])
    assert conv(images[:0].flatten(-3)).shape == (0, *found.shape[1:])


@given(conv=convolutions())
def test_both_bounds_of_a_convolution_are_above_its_norm(conv: mm.Conv2d) -> None:
    true = float(torch.linalg.matrix_norm(dense(conv), ord=2)) * (1 - 1e-12)
    windows = conv.windows
    kernel = conv.weight.reshape(conv.groups, -1, conv.in_channels // conv.groups, *windows.kernel)
    torus = convolution_norm(
        kernel, size=windows.size, stride=windows.stride, padding=windows.padding
    )
    assert true <= torus / math.sqrt(windows.overlap)
    assert true <= float(torch.linalg.matrix_norm(conv.weight.detach(), ord=2).amax())
    assert true <= conv.certified()


@given(
    window=st.tuples(pairs(1, 6), pairs(1, 4), pairs(1, 4), pairs(0, 2)).filter(
        lambda w: all(n + 2 * p >= k for n, k, p in zip(w[0], w[1], w[3], strict=True))
    )
)
def test_the_overlap_counts_the_windows_over_an_entry(
    window: tuple[Pair, Pair, Pair, Pair],
) -> None:
    """Never fewer than there are, and no more than there would be over an entry far from any border."""
    windows = Windows(*window)
    ones = torch.ones(1, 1, *windows.outputs)
    covered = functional.conv_transpose2d(
        ones, torch.ones(1, 1, *windows.kernel), None, windows.stride
    )
    assert float(covered.amax()) <= windows.overlap
    wide = Windows((40, 40), windows.kernel, windows.stride)
    many = functional.conv_transpose2d(
        torch.ones(1, 1, *wide.outputs), torch.ones(1, 1, *wide.kernel), None, wide.stride
    )
    assert float(many.amax()) == wide.overlap >= windows.overlap


def periodic_norm(kernel: Tensor, stride: int, torus: int) -> float:
    """The norm of the convolution on a torus, from its dense matrix."""
    k = kernel.shape[-1]
    eye = torch.eye(kernel.shape[1] * torus**2, dtype=torch.float64)
    images = eye.unflatten(-1, (-1, torus, torus))
    images = functional.pad(images, (0, k - 1, 0, k - 1), mode="circular")
    matrix = functional.conv2d(images, kernel, stride=stride).flatten(1)
    return float(torch.linalg.matrix_norm(matrix, ord=2))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_frequencies_give_the_norm_on_the_torus(stride: int) -> None:
    """Nothing is lost but the border: the norm of the periodic map itself, with any stride."""
    kernel = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    for size in (6, 12):
        found = convolution_norm(
            kernel[None], size=(size, size), stride=(stride, stride), padding=(0, 0)
        )
        true = periodic_norm(kernel, stride, size)
        assert true <= found <= true * (1 + 1e-12)


def test_the_certified_bound_of_a_convolution_is_tight() -> None:
    """Within a fifth of the dense matrix with same padding, where that of the reshaped weight is at 1.8."""
    conv = mm.Conv2d(3, 3, 3, size=9, padding=1).double()
    with torch.no_grad():
        conv.weight.normal_()
    true = float(torch.linalg.matrix_norm(dense(conv), ord=2))
    assert true < conv.certified() <= 1.2 * true
    assert float(torch.linalg.matrix_norm(conv.weight.detach(), ord=2)) > 1.5 * true


def test_a_grouped_convolution_takes_the_largest_of_its_groups() -> None:
    """Not the product 0.0625 of four halves, and not the norm of the groups laid into one matrix, which is 1."""
    conv = mm.Conv2d(4, 4, 1, size=2, groups=4).double()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.5, 0.5, 0.5, -0.5]).reshape(4, 1, 1))
    assert conv.certified() == pytest.approx(0.5)
    assert mm.lipschitz(conv).certified == pytest.approx(0.5)
    assert float(torch.linalg.matrix_norm(dense(conv), ord=2)) == pytest.approx(0.5)
    norms = conv.geometry.norm.value(conv.weight)
    assert norms.tolist() == pytest.approx([0.5] * 4)


def test_the_weight_of_a_convolution_is_orthogonal_the_right_way() -> None:
    """Rows over (in, height, width) of each output channel, group by group; not columns, not channels mixed."""
    conv = cases.in_double(mm.Conv2d(4, 6, 3, size=5, groups=2))
    kernels = conv.weight.detach().reshape(6, 2, 3, 3)
    for group in kernels.split(3):
        rows = group.flatten(1)
        torch.testing.assert_close(rows @ rows.mT, torch.eye(3, dtype=torch.float64))
    assert mm.Conv2d(4, 6, 3, size=5).weight.shape == (6, 36)


@pytest.mark.parametrize(
    "manifold", [mm.Stiefel(), mm.Stiefel(1.5), mm.Sphere(2.0), mm.Euclidean()]
)
def test_training_keeps_every_matrix_of_a_stack_on_its_manifold(manifold: mm.Manifold) -> None:
    conv = mm.Conv2d(4, 4, 3, size=4, padding=1, groups=2, manifold=manifold, norm=mm.Spectral())
    net = conv >> mm.ReLU() >> mm.Linear(64, 3)
    before = conv.weight.detach().clone()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    x, y = torch.randn(16, 64), torch.randint(3, (16,))
    losses = []
    for _ in range(8):
        opt.zero_grad()
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert bool((conv.weight != before).any(dim=-1).all())
    assert bool((manifold.residual(conv.weight) < 1e-5).all())
    one = mm.Conv2d(2, 2, 3, size=4, groups=2)
    two = copy.deepcopy(one)
    gradients = torch.randn_like(one.weight)
    for each, part in ((one, slice(None)), (two, slice(0, 1))):
        each.weight.grad = torch.zeros_like(gradients)
        each.weight.grad[part] = gradients[part]
        mm.SteepestDescent(each, lr=0.1).step()
    torch.testing.assert_close(one.weight[0], two.weight[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, r"Conv2d\(in_channels\) must be a positive whole number, got 0"),
        ({"groups": 3}, r"Conv2d\(groups\) must divide both numbers of channels, got 3 of 4 and 2"),
        ({"kernel_size": 9}, r"must fit into the image with its padding, got \(9, 9\) in \(5, 5\)"),
        ({"kernel_size": (3, 0)}, r"must be one or two whole numbers of at least 1, got \(3, 0\)"),
        ({"stride": True}, "of at least 1, got True"),
        ({"padding": -1}, "of at least 0, got -1"),
        ({"size": (5, 5, 5)}, r"Conv2d\(size\) must be one or two"),
    ],
)
def test_bad_convolutions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mm.Conv2d(**{"in_channels": 4, "out_channels": 2, "kernel_size": 3, "size": 5, **arguments})


def test_an_image_that_is_not_flat_is_refused_in_words() -> None:
    images = torch.randn(2, 3, 4, 4)
    for module in (mm.Conv2d(3, 2, 3, size=4), mm.MeanPool(3, 2, size=4)):
        with pytest.raises(ShapeError, match=r"must have 48 features.*mm.Flatten\(\) in front"):
            module(images)
        assert (mm.Flatten() >> module)(images).dim() == 2


def test_a_convolutional_network_declares_one_and_keeps_it() -> None:
    net = mm.models.ConvNet(
        3, 5, size=(8, 8), width=4, depth=2, logit_scale=1.0, masses=(1.0, 3.0, 2.0)
    )
    assert (net.source, net.target) == (mm.Space(192), mm.Space(5))
    assert net.sensitivity == pytest.approx(1.0)
    assert net.mass == pytest.approx(6.0)
    report = mm.lipschitz(net, radius=1.0)
    assert report.empirical <= report.certified < report.declared == pytest.approx(1.0)
    assert report.rounding is not None
    assert report.rounding < 1e-3
    sizes = mm.activations(net, points=torch.randn(20, 192)).rows
    assert all(row.output.measured <= row.output.certified for row in sizes if row.output.measured)
    masses = [row.mass for row in mm.budget(net).rows]
    assert masses == [1.0, 1.5, 1.5, 2.0]


def test_a_convolutional_network_learns() -> None:
    """To tell where in an image the bright pixel is."""
    net = mm.models.ConvNet(1, 4, size=(8, 8), width=4, depth=1, logit_scale=1.0)
    labels = torch.arange(4).repeat(8)
    images = 0.1 * torch.randn(32, 1, 8, 8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * (label // 2) + 1, 4 * (label % 2) + 2] += 3.0
    opt = mm.SteepestDescent(net, lr=0.2, momentum=0.9)
    for _ in range(30):
        opt.zero_grad()
        functional.cross_entropy(10 * net(images.flatten(1)), labels).backward()
        opt.step()
    assert bool((net(images.flatten(1)).argmax(dim=-1) == labels).float().mean() > 0.9)
    assert all(row.residual < 1e-5 for row in mm.conditioning(net).rows)

"""One meaning of points in every report: whatever the network takes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError


def mlp() -> mm.Module:
    return mm.Linear(6, 16) >> mm.ReLU() >> mm.Linear(16, 8) >> mm.MaxMin() >> mm.Linear(8, 4)


def predicted(net: mm.Module, x: Tensor) -> Tensor:
    return net(x).argmax(dim=1).detach()


def image_net() -> mm.Module:
    convolution = mm.Conv2d(3, 2, 3, size=4)
    return mm.Flatten() >> convolution >> mm.ReLU() >> mm.Linear(8, 3)


def test_images_are_taken_as_the_network_takes_them() -> None:
    net, images = image_net(), torch.randn(5, 3, 4, 4)
    labels = predicted(net, images)
    attack = mm.ProjectedGradient(steps=3)
    # One number a channel broadcasts with an image, and not with a vector.
    std = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    scale = mm.InputScale(torch.zeros(3, 1, 1), std, "pixels")
    mm.robustness(net, images, labels, scale=scale, attack=attack)
    vectors = images.flatten(1)
    for report in (
        lambda x: mm.robustness(net, x, labels, attack=attack),
        lambda x: mm.lipschitz(net, points=x, iterations=3),
        lambda x: mm.activations(net, points=x),
    ):
        expected = report(vectors)
        assert report(images) == report(images.numpy()) == report(images.double()) == expected
    # A network of vectors has the same entries in an image.
    plain = mm.Linear(48, 3)
    found = predicted(plain, vectors)
    assert mm.robustness(plain, images, found) == mm.robustness(plain, vectors, found)


class Brightness(mm.Bond):
    """Takes images and keeps their shape: a factor of at most 1 a channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([0.5, 0.25, 1.0]).to(x).reshape(3, 1, 1)


def test_a_bond_in_front_of_flatten_sees_images() -> None:
    net, images = Brightness() >> image_net(), torch.randn(5, 3, 4, 4)
    report = mm.robustness(net, images, predicted(net, images), attack=mm.ProjectedGradient())
    assert report.clean == 1.0


def test_any_leading_shape_and_any_whole_dtype() -> None:
    net, x = mlp(), torch.randn(2, 3, 6)
    labels = net(x).argmax(dim=-1)
    expected = mm.robustness(net, x.reshape(6, 6), labels.flatten())
    assert mm.robustness(net, x, labels) == expected
    assert mm.robustness(net, x.numpy(), labels.numpy()) == expected
    assert mm.robustness(net, x.tolist(), labels.tolist()).clean == 1.0
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64):
        assert mm.robustness(net, x, labels.to(dtype)) == expected
    one = mm.robustness(net, x[0, 0], labels[0, 0])
    assert one == mm.robustness(net, x[0, :1], labels[0, :1])
    for points in (x, x.numpy(), x.tolist()):
        flat = x.reshape(6, 6)
        assert mm.lipschitz(net, points=points, iterations=3) == mm.lipschitz(
            net, points=flat, iterations=3
        )
        assert mm.activations(net, points=points) == mm.activations(net, points=flat)
    assert mm.lipschitz(net, points=x[0, 0], iterations=3).searched == 1
    chain = mm.Flatten() >> mm.Linear(6, 4) >> mm.ReLU()
    for point in (x[0, :1], x[0, 0].reshape(2, 3), x[0, 0].numpy(), x[0, 0].double()):
        found = mm.local_lipschitz(chain, point, radius=1e-3)
        assert found == mm.local_lipschitz(chain, x[0, 0], radius=1e-3)


def test_tokens_are_points_of_a_network_that_begins_with_an_embedding() -> None:
    net = mm.Embedding(5, 4) >> mm.Linear(4, 3, source_norm="rms", target_norm="rms")
    tokens = torch.tensor([[0, 4, 2], [1, 1, 3]])
    vectors = torch.nn.functional.one_hot(tokens, 5).double()
    assert mm.lipschitz(net, points=tokens) == mm.lipschitz(net, points=vectors)
    assert mm.activations(net, points=tokens) == mm.activations(net, points=vectors)
    labels = net(tokens).argmax(dim=-1)
    assert mm.robustness(net, tokens, labels) == mm.robustness(net, vectors, labels)
    with pytest.raises(ArgumentError, match="points must be tokens from 0 to 4, got 0 to 5"):
        mm.lipschitz(net, points=torch.tensor([0, 5]))


def test_points_that_do_not_fit_are_refused_in_words() -> None:
    net = mm.Linear(6, 5) >> mm.ReLU() >> mm.Linear(5, 3)
    for points, kind, rule in (
        (torch.randn(3, 5), ShapeError, "must have 6 features, as the network takes, got 5 in a"),
        (torch.tensor(1.0), ShapeError, "must have 6 features, as the network takes, got a number"),
        (torch.full((2, 6), math.nan), NonFiniteError, "must be finite"),
        (torch.randn(2, 6) + 1j, ArgumentError, "must be real, got torch.complex64"),
        (torch.randn(2, 6, device="meta"), ArgumentError, "must be a dense tensor with values"),
        ("points", ArgumentError, "must be a tensor, or an array or lists of numbers, got str"),
        ([[1.0], [1.0, 2.0]], ArgumentError, "must be a tensor, or an array or lists of numbers"),
    ):
        for report in (
            lambda x: mm.lipschitz(net, points=x),
            lambda x: mm.activations(net, points=x),
            lambda x: mm.local_lipschitz(net, x, radius=1.0),
        ):
            with pytest.raises(kind, match=rule):
                report(points)
    for points, labels, rule in (
        (torch.randn(3, 5), [0, 0, 0], "must have 6 features, as the network takes, got 5 in a"),
        (torch.randn(3, 6), [0, 0], "must be of shapes .* got \\(3, 6\\) and \\(2,\\)"),
        (torch.randn(3, 6), [[0], [0]], "must be of shapes .* got \\(3, 6\\) and \\(2, 1\\)"),
        (torch.tensor(1.0), 0, "must be of shapes .* got \\(\\) and \\(\\)"),
        (torch.randn(2, 6) + 1j, [0, 0], "must be real, got torch.complex64"),
        (torch.randn(2, 6), torch.zeros(2), "must be whole numbers, got torch.float32"),
        (torch.randn(2, 6), "labels", "must be a tensor, or an array or lists of numbers"),
    ):
        with pytest.raises(ArgumentError, match=rule):
            mm.robustness(net, points, labels)

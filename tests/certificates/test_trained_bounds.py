"""The bounds of networks as they are used: the post's network on digits, and one that is deep."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.training import load_data
from modular_manifolds.training.data import DataSet


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data("digits")


def trained(digits: DataSet) -> tuple[mm.Module, list[float]]:
    """Two epochs of manifold Muon in float32, and the largest singular value after every step."""
    torch.manual_seed(0)
    net = mm.Linear(64, 128) >> mm.ReLU() >> mm.Linear(128, 64) >> mm.ReLU() >> mm.Linear(64, 10)
    opt = mm.SteepestDescent(net, lr=0.3, momentum=0.9)
    largest: list[float] = []
    for step in range(30):
        opt.zero_grad()
        some = torch.arange(96 * step, 96 * (step + 1)) % len(digits.train.labels)
        scores = net(digits.train.images[some].flatten(1))
        functional.cross_entropy(scores, digits.train.labels[some]).backward()
        opt.step()
        sizes = [torch.linalg.matrix_norm(p.detach().double(), 2) for p in net.parameters()]
        largest.append(max(map(float, sizes)))
    return net, largest


def test_the_bound_of_a_trained_network_is_one_and_within_twice_of_what_is_found(
    digits: DataSet,
) -> None:
    net, largest = trained(digits)
    points = digits.test.images.flatten(1)
    accuracy = float((net(points).argmax(dim=1) == digits.test.labels).double().mean())
    assert accuracy > 0.8
    # In training too, not only at its end.
    assert max(largest) <= 1 + 1e-5
    report = mm.lipschitz(net, points=points)
    assert report.declared == pytest.approx(1.0)
    assert report.empirical <= report.certified <= 1 + 1e-5
    assert report.tightness <= 2
    assert report.certified >= largest[-1]


@pytest.mark.long
def test_the_report_of_fifty_modules_takes_less_than_ten_seconds() -> None:
    net: mm.Module = mm.Linear(128, 128)
    for _ in range(16):
        net = net >> mm.ReLU() >> 0.9 * mm.Residual(mm.Linear(128, 128) >> mm.GELU(), depth=8)
    assert len(mm.lipschitz(net, starts=1, iterations=1).rows) >= 50
    # The processor's time: what other programs take does not count, and threads that wait count twice.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.process_time()
    report = mm.lipschitz(net)
    taken = time.process_time() - begun
    torch.set_num_threads(threads)
    assert taken < 10
    assert 0 < report.empirical <= report.certified

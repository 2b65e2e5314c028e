"""A composition is counted, indexed, sliced, iterated and changed as `torch.nn.Sequential` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, PartIndexError, SharedWeightError, SpaceError

KINDS: list[type[mm.Series] | type[mm.Parallel] | type[mm.Sum]] = [mm.Series, mm.Parallel, mm.Sum]
SLICES = [
    slice(1, 3),
    slice(None),
    slice(-2, None),
    slice(None, 2),
    slice(None, None, 2),
    slice(None, None, -1),
]


def layers() -> list[mm.Module]:
    return [mm.Linear(4, 4), mm.ReLU(), mm.Linear(4, 4), mm.MaxMin()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_composition_is_read_like_torchs_sequential(kind: Callable[..., Any]) -> None:
    parts = layers()
    net, torchs = kind(*parts), nn.Sequential(*parts)
    assert len(net) == len(torchs) == 4
    assert list(net) == list(torchs) == parts
    assert list(reversed(net)) == parts[::-1]
    for index in (0, 3, -1, -4, np.int64(2)):
        assert net[index] is torchs[int(index)]
    assert parts[2] in net
    assert mm.ReLU() not in net
    for some in SLICES:
        piece, expected = net[some], nn.Sequential(*parts)[some]
        assert isinstance(expected, nn.Sequential)
        assert type(piece) is kind
        assert dict(piece.parts()) == dict(expected.named_children())
        assert list(piece) == list(expected)


def test_a_slice_computes_its_part_with_the_same_weights_under_the_same_names() -> None:
    net, x = mm.Series(*layers(), head=mm.Linear(4, 2)), torch.randn(3, 4)
    torch.testing.assert_close(net[2:](net[:2](x)), net(x), rtol=0, atol=0)
    assert list(net[2:].state_dict()) == ["2.weight", "head.weight"]
    assert net[2:].get_parameter("2.weight") is net.get_parameter("2.weight")
    assert net[2:].target == net.target


@pytest.mark.parametrize("kind", KINDS)
def test_places_that_are_not_there_are_index_errors_in_words(kind: Callable[..., Any]) -> None:
    net = kind(*layers())
    for index in (4, -5, 10**20):
        for act in (net.__getitem__, net.__delitem__, lambda i: net.__setitem__(i, mm.ReLU())):
            with pytest.raises(
                IndexError, match=r"must lie between -4 and 3, got .*It has 4 parts"
            ):
                act(index)
    assert issubclass(PartIndexError, ArgumentError)
    for wrong in ("head", 1.0, None, (0, 1)):
        with pytest.raises(ArgumentError, match=r"\[index\] must be a whole number or a slice"):
            net[wrong]
    with pytest.raises(ArgumentError, match="must hold at least one module"):
        net[4:]
    with pytest.raises(SpaceError):
        (mm.Linear(4, 3) >> mm.Linear(3, 2) >> mm.Linear(2, 4))[::2]


def changed(net: Any, act: Callable[[Any], object]) -> list[tuple[str, str]]:
    act(net)
    return [(name, type(part).__name__) for name, part in net.named_children()]


@pytest.mark.parametrize(
    "act",
    [
        lambda net: net.__setitem__(1, mm.GELU()),
        lambda net: net.__setitem__(-2, mm.Linear(4, 4)),
        lambda net: net.__delitem__(1),
        lambda net: net.__delitem__(slice(1, 3)),
        lambda net: net.append(mm.Abs()),
        lambda net: net.extend([mm.Abs(), mm.Linear(4, 4)]),
        lambda net: net.insert(1, mm.Abs()),
        lambda net: net.insert(-1, mm.Abs()),
        lambda net: net.insert(4, mm.Abs()),
    ],
)
def test_a_series_is_changed_like_torchs_sequential(act: Callable[[Any], object]) -> None:
    net, torchs = mm.Series(*layers()), nn.Sequential(*layers())
    assert changed(net, act) == changed(torchs, act)
    mm.budget(net)
    mm.SteepestDescent(net, lr=0.1)
    net(torch.randn(2, 4))


def test_given_names_survive_a_change() -> None:
    net = mm.Series(mm.Linear(4, 4), mm.ReLU(), head=mm.Linear(4, 2))
    del net[0]
    assert [name for name, _ in net.parts()] == ["0", "head"]
    net[-1] = mm.Linear(4, 3)
    assert [name for name, _ in net.parts()] == ["0", "head"]
    assert net.target == mm.Space(3)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda net: net.__setitem__(0, mm.Linear(4, 3)), SpaceError),
        (lambda net: net.__setitem__(0, net[2]), SharedWeightError),
        (lambda net: net.__setitem__(0, nn.Linear(4, 4)), ArgumentError),
        (lambda net: net.__setitem__(slice(0, 2), mm.ReLU()), ArgumentError),
        (lambda net: net.__delitem__(slice(None)), ArgumentError),
        (lambda net: net.append(mm.Linear(3, 3)), SpaceError),
        (lambda net: net.append(net[0]), SharedWeightError),
        (lambda net: net.extend([mm.ReLU(), nn.ReLU()]), ArgumentError),
        (lambda net: net.insert(0, mm.Linear(4, 3)), SpaceError),
        (lambda net: net.insert(7, mm.ReLU()), PartIndexError),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(
    act: Callable[[Any], object], error: type[ArgumentError]
) -> None:
    net = mm.Series(*layers())
    before = dict(net.named_children())
    with pytest.raises(error):
        act(net)
    assert dict(net.named_children()) == before
    mm.budget(net)


def test_a_change_inside_a_network_is_checked_with_the_whole() -> None:
    """The inner series fits in itself, and no longer where it stands."""
    net = mm.Series(body=mm.Series(*layers()), head=mm.Linear(4, 2))
    body: Any = net.body
    body[2] = mm.Linear(4, 3)
    with pytest.raises(SpaceError):
        mm.budget(net)


def test_a_compiled_part_goes_in_as_the_module_inside() -> None:
    net = mm.Series(*layers())
    net[0] = torch.compile(net[0], backend="eager")  # pyright: ignore[reportArgumentType]
    assert list(net.state_dict()) == ["0.weight", "2.weight"]
    assert type(net[0]) is mm.Linear

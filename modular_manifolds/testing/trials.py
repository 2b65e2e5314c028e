"""Inputs to try a module on, vectors or tuples of them, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from modular_manifolds.composition.radius import Radius, total
from modular_manifolds.composition.sizes import reach, slope
from modular_manifolds.composition.space import VECTOR_NORMS, AnySpace, ProductSpace, Space, is_open
from modular_manifolds.composition.tree import Tree, leading
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import Composed
from modular_manifolds.testing.measure import vector_norm
from modular_manifolds.testing.sample import Sample

DRAWN: Final = 256
"""Inputs of each kind that are drawn."""


@dataclass(frozen=True)
class Trial:
    """A module with one space, or tuple of spaces, to feed it from."""

    module: Composed
    tree: Tree
    source: Space | ProductSpace
    target: AnySpace

    @property
    def net(self) -> nn.Module:
        return cast("nn.Module", self.module)

    def __str__(self) -> str:
        return f"{type(self.module).__name__} from {self.source} to {self.target}"


def trials(module: Composed, sample: Sample) -> Iterator[Trial]:
    tree = module.tree()
    signature = tree.signature
    if signature.source is None:
        for norm in VECTOR_NORMS:
            space = Space(sample.shape[-1], norm)
            yield Trial(module, tree, space, _closed(signature.target, space))
    elif isinstance(signature.source, Space | ProductSpace) and not is_open(signature.source):
        yield Trial(module, tree, signature.source, signature.target)
    else:
        raise ArgumentError(
            "check_module(module)",
            "must take vectors, or tuples of them",
            signature.source,
            "Check the modules in front of it and this one in one series.",
        )


def slopes(tree: Tree, within: Any) -> Tensor:
    """The slope bound of each pair of inputs, of norm at most `within`, part by part."""
    norms = torch.stack(vectors(within), dim=-1)
    smallest, largest = (
        slope(tree, _radius(within, each)) for each in (norms.amin(dim=0), norms.amax(dim=0))
    )
    if smallest == largest:
        return torch.full_like(norms[:, 0], largest)
    bounds = [slope(tree, _radius(within, each)) for each in norms]
    return torch.tensor(bounds, dtype=torch.float64).to(norms)


def reaches(tree: Tree, within: Any) -> Tensor:
    """The bound on the output of each input, of norm at most `within`, part by part."""
    norms = torch.stack(vectors(within), dim=-1)
    bounds = [total(reach(tree, _radius(within, each))) for each in norms]
    return torch.tensor(bounds, dtype=torch.float64).to(norms)


def largest_reach(tree: Tree, within: Any) -> float:
    """The bound on the output of every input, of norm at most `within`, part by part."""
    norms = torch.stack(vectors(within), dim=-1)
    return total(reach(tree, _radius(within, norms.amax(dim=0))))


def output_rounding(trial: Trial, sample: Sample) -> float:
    """How far rounding may move the difference of two outputs, relative to the bound on the outputs.

    A sum of n products is off by at most `nε/2` times the sum of their sizes. That sum is within √n of the bound on
    the output, also if the output itself cancels. The factor 16 leaves room for √n and for several such sums.
    """
    return 16 * (_entries(trial.source) + _entries(trial.target)) * sample.eps


def _entries(space: AnySpace) -> int:
    """The numbers in one vector of the space; those of a tuple are added."""
    if isinstance(space, ProductSpace):
        return sum(_entries(part) for part in space.parts)
    return space.size if isinstance(space, Space) else 0


def _radius(like: Any, sizes: Tensor) -> Radius:
    """One input's sizes in the form of the tuple `like`."""
    left = iter(sizes.tolist())

    def shaped(part: Any) -> Radius:
        return tuple(shaped(each) for each in part) if isinstance(part, tuple) else next(left)

    return shaped(like)


def _closed(target: AnySpace, source: Space) -> AnySpace:
    if isinstance(target, ProductSpace):
        return ProductSpace(tuple(_closed(part, source) for part in target.parts))
    return target if isinstance(target, Space) else source


def drawn(trial: Trial, sample: Sample, name: str, count: int) -> Any:
    """Inputs with independent normal entries."""
    dimensions = (count, *leading(trial.tree))

    def part(space: AnySpace, name: str) -> Any:
        if isinstance(space, ProductSpace):
            return tuple(part(each, f"{name} {i}") for i, each in enumerate(space.parts))
        assert isinstance(space, Space)
        return sample.normal(name, (*dimensions, space.size))

    return part(trial.source, name)


def pairs(trial: Trial, sample: Sample) -> Iterator[tuple[Any, Any]]:
    """Inputs at several sizes, moved in random, sign and coordinate directions, near and far."""
    random = drawn(trial, sample, "move", DRAWN)
    near = sample.eps ** (1 / 4)
    for size in (0.1, 1.0, 10.0):
        x = part_by_part(lambda part, size=size: size * part, drawn(trial, sample, "x", DRAWN))
        for direction in (
            random,
            part_by_part(torch.sign, random),
            part_by_part(_coordinate, random),
        ):
            for step in (near, 1.0, 30.0):
                yield (
                    x,
                    part_by_part(lambda part, move, step=step: part + step * move, x, direction),
                )


def _coordinate(x: Tensor) -> Tensor:
    """One at each entry that is the largest of its vector, and zero elsewhere."""
    return torch.zeros_like(x).scatter(-1, x.abs().argmax(dim=-1, keepdim=True), 1.0)


def of_size(x: Any, space: AnySpace, size: float) -> Any:
    length = measure(x, space)
    return part_by_part(lambda part: size * part / length.reshape(-1, *[1] * (part.dim() - 1)), x)


def part_by_part(function: Callable[..., Tensor], *inputs: Any) -> Any:
    """`function` of tensors, or of tuples part by part."""
    if isinstance(inputs[0], tuple):
        return tuple(part_by_part(function, *parts) for parts in zip(*inputs, strict=True))
    return function(*inputs)


def vectors(x: Any) -> list[Tensor]:
    """The tensors of a tuple, in order."""
    return [each for part in x for each in vectors(part)] if isinstance(x, tuple) else [x]


def flat(x: Any) -> Tensor:
    """One row an input: its entries, those of a tuple part after part."""
    return torch.cat([part.flatten(1) for part in vectors(x)], dim=1)


def shaped_like(x: Any) -> Callable[[Tensor], Any]:
    """The inverse of `flat` for an input like `x`."""
    widths = [part[0].numel() for part in vectors(x)]

    def shaped(rows: Tensor) -> Any:
        left = iter(rows.split(widths, dim=1))
        return part_by_part(lambda part: next(left).reshape(-1, *part.shape[1:]), x)

    return shaped


def minus(a: Any, b: Any) -> Any:
    return part_by_part(torch.sub, a, b)


def sizes(x: Any, space: AnySpace) -> Any:
    """The norm of each input, the largest over the vectors in it; of a tuple part by part."""
    if isinstance(space, ProductSpace):
        return tuple(sizes(part, each) for part, each in zip(x, space.parts, strict=True))
    assert isinstance(space, Space)
    norms = vector_norm(x, space.norm)
    return norms.flatten(1).amax(dim=1) if norms.dim() > 1 else norms


def measure(x: Any, space: AnySpace) -> Tensor:
    """The norm of an input; of a tuple the sum over its parts."""
    return torch.stack(vectors(sizes(x, space))).sum(dim=0)

"""Trial inputs of a module, which are vectors or tuples of vectors, and their norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from modular_manifolds.composition.radius import Radius, total
from modular_manifolds.composition.sizes import output_bound, slope
from modular_manifolds.composition.space import VECTOR_NORMS, AnySpace, ProductSpace, Space, is_open
from modular_manifolds.composition.tree import Tree, leading
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import Composed
from modular_manifolds.testing.measure import vector_norm
from modular_manifolds.testing.sample import Sample

TRIAL_INPUTS: Final = 256
"""The number of random inputs of each kind."""


@dataclass(frozen=True)
class Trial:
    """A module with a source space for its inputs, and the target space for that source."""

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
            yield Trial(module, tree, space, _substitute_source(signature.target, space))
    elif isinstance(signature.source, Space | ProductSpace) and not is_open(signature.source):
        yield Trial(module, tree, signature.source, signature.target)
    else:
        raise ArgumentError(
            "check_module(module)",
            "must take vectors, or tuples of them",
            signature.source,
            "Check a series of this module and the modules before it.",
        )


def slopes(tree: Tree, radii: Any) -> Tensor:
    """The slope bound for each pair of inputs, whose parts have norms of at most `radii`."""
    norms = torch.stack(tensors_of(radii), dim=-1)
    smallest, largest = (
        slope(tree, _radius(radii, each)) for each in (norms.amin(dim=0), norms.amax(dim=0))
    )
    if smallest == largest:
        return torch.full_like(norms[:, 0], largest)
    bounds = [slope(tree, _radius(radii, each)) for each in norms]
    return torch.tensor(bounds, dtype=torch.float64).to(norms)


def output_bounds(tree: Tree, radii: Any) -> Tensor:
    """The bound on the output for each input, whose parts have norms of at most `radii`."""
    norms = torch.stack(tensors_of(radii), dim=-1)
    bounds = [total(output_bound(tree, _radius(radii, each))) for each in norms]
    return torch.tensor(bounds, dtype=torch.float64).to(norms)


def largest_output_bound(tree: Tree, radii: Any) -> float:
    """The bound on the outputs of all inputs, whose parts have norms of at most `radii`."""
    norms = torch.stack(tensors_of(radii), dim=-1)
    return total(output_bound(tree, _radius(radii, norms.amax(dim=0))))


def output_rounding(trial: Trial, sample: Sample) -> float:
    """A bound on the rounding error of the difference of two outputs, relative to the bound on the outputs.

    The error of a sum of n products is at most `nε/2` times the sum of their absolute values. That sum is at most √n
    times the bound on the output, even if the terms cancel. The factor 16 allows for √n and for several such sums.
    """
    return 16 * (_entries(trial.source) + _entries(trial.target)) * sample.eps


def _entries(space: AnySpace) -> int:
    """The number of entries of a vector of the space; for a tuple, the sum over its parts."""
    if isinstance(space, ProductSpace):
        return sum(_entries(part) for part in space.parts)
    return space.size if isinstance(space, Space) else 0


def _radius(like: Any, sizes: Tensor) -> Radius:
    """The norms of one input's parts, nested like the tuple `like`."""
    remaining = iter(sizes.tolist())

    def shaped(part: Any) -> Radius:
        return tuple(shaped(each) for each in part) if isinstance(part, tuple) else next(remaining)

    return shaped(like)


def _substitute_source(target: AnySpace, source: Space) -> AnySpace:
    if isinstance(target, ProductSpace):
        return ProductSpace(tuple(_substitute_source(part, source) for part in target.parts))
    return target if isinstance(target, Space) else source


def draw_inputs(trial: Trial, sample: Sample, name: str, count: int) -> Any:
    """Inputs with independent normal entries."""
    dimensions = (count, *leading(trial.tree))

    def part(space: AnySpace, name: str) -> Any:
        if isinstance(space, ProductSpace):
            return tuple(part(each, f"{name} {i}") for i, each in enumerate(space.parts))
        assert isinstance(space, Space)
        return sample.normal(name, (*dimensions, space.size))

    return part(trial.source, name)


def pairs(trial: Trial, sample: Sample) -> Iterator[tuple[Any, Any]]:
    """Pairs of inputs of several sizes that differ by short and long steps in random, sign and coordinate directions."""
    random = draw_inputs(trial, sample, "move", TRIAL_INPUTS)
    short_step = sample.eps ** (1 / 4)
    for size in (0.1, 1.0, 10.0):
        x = map_parts(
            lambda part, size=size: size * part, draw_inputs(trial, sample, "x", TRIAL_INPUTS)
        )
        for direction in (
            random,
            map_parts(torch.sign, random),
            map_parts(_coordinate, random),
        ):
            for step in (short_step, 1.0, 30.0):
                yield (
                    x,
                    map_parts(lambda part, move, step=step: part + step * move, x, direction),
                )


def _coordinate(x: Tensor) -> Tensor:
    """The coordinate vector of the largest entry of each vector."""
    return torch.zeros_like(x).scatter(-1, x.abs().argmax(dim=-1, keepdim=True), 1.0)


def of_size(x: Any, space: AnySpace, size: float) -> Any:
    length = measure(x, space)
    return map_parts(lambda part: size * part / length.reshape(-1, *[1] * (part.dim() - 1)), x)


def map_parts(function: Callable[..., Tensor], *inputs: Any) -> Any:
    """`function` of tensors, or of tuples part by part."""
    if isinstance(inputs[0], tuple):
        return tuple(map_parts(function, *parts) for parts in zip(*inputs, strict=True))
    return function(*inputs)


def tensors_of(x: Any) -> list[Tensor]:
    """The tensors of a tuple, in order."""
    return [each for part in x for each in tensors_of(part)] if isinstance(x, tuple) else [x]


def as_rows(x: Any) -> Tensor:
    """Each input as one row: its entries; for a tuple, the entries of its parts in order."""
    return torch.cat([part.flatten(1) for part in tensors_of(x)], dim=1)


def from_rows(x: Any) -> Callable[[Tensor], Any]:
    """The inverse of `as_rows` for inputs of the shape of `x`."""
    widths = [part[0].numel() for part in tensors_of(x)]

    def from_one_matrix(rows: Tensor) -> Any:
        remaining = iter(rows.split(widths, dim=1))
        return map_parts(lambda part: next(remaining).reshape(-1, *part.shape[1:]), x)

    return from_one_matrix


def difference(a: Any, b: Any) -> Any:
    return map_parts(torch.sub, a, b)


def sizes(x: Any, space: AnySpace) -> Any:
    """The norm of each input, which is the largest over its vectors; for a tuple, of each part."""
    if isinstance(space, ProductSpace):
        return tuple(sizes(part, each) for part, each in zip(x, space.parts, strict=True))
    assert isinstance(space, Space)
    norms = vector_norm(x, space.norm)
    return norms.flatten(1).amax(dim=1) if norms.dim() > 1 else norms


def measure(x: Any, space: AnySpace) -> Tensor:
    """The norm of each input; for a tuple, the sum over its parts."""
    return torch.stack(tensors_of(sizes(x, space))).sum(dim=0)

"""What every module must do: the numbers it declares are tried against the function it computes.

Random search and gradient ascent find lower bounds: a law that passes has not proved the declared
number, one that fails has refuted it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from modular_manifolds.composition.budget import allocate
from modular_manifolds.composition.radius import Radius, total
from modular_manifolds.composition.space import VECTOR_NORMS, AnySpace, ProductSpace, Space, is_open
from modular_manifolds.composition.tree import Tree, leading, reach, slope
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.ascent import climb
from modular_manifolds.testing.check import at_most, equal, untouched
from modular_manifolds.testing.measure import vector_norm
from modular_manifolds.testing.sample import Sample

DRAWN = 256
"""Pairs of each kind that are drawn."""
ASCENTS, TURNS, STEPS = 16, 6, 3
"""Pairs of each kind that climb; how often point and direction take turns; steps of a turn."""


class WeightGeometry(Protocol):
    """Manifold and norm of one weight."""

    @property
    def manifold(self) -> Manifold: ...
    @property
    def norm(self) -> Norm: ...


class Composed(Protocol):
    """What the laws ask of a module; every module of this library has it."""

    def tree(self, path: str = "") -> Tree: ...
    def geometries(self, path: str = "") -> Iterator[tuple[str, Any]]: ...
    def __call__(self, x: Any) -> Any: ...


@dataclass(frozen=True)
class _Trial:
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


ModuleLaw = Callable[[Composed, Sample], None]


def sensitivity_bounds_the_slope(module: Composed, sample: Sample) -> None:
    """`‖f(x) − f(y)‖_target ≤ sensitivity · ‖x − y‖_source` for inputs near and far."""
    for trial in _trials(module, sample):
        for x, y in _pairs(trial, sample):
            apart = _measure(_minus(y, x), trial.source)
            within = _each(torch.maximum, _sizes(x, trial.source), _sizes(y, trial.source))
            allowed = _slopes(trial.tree, within) * (1 + sample.tolerance)
            moved = _measure(_minus(module(y), module(x)), trial.target)
            # A difference of outputs carries the rounding of the outputs.
            noise = sample.eps * _measure(module(x), trial.target)
            law = f"{trial}: sensitivity bounds the slope"
            at_most(moved - 8 * noise, allowed * apart, law)


def no_ascent_beats_the_sensitivity(module: Composed, sample: Sample) -> None:
    """`‖f(x + d) − f(x)‖ ≤ sensitivity · ‖d‖` where gradient ascent leads, the lengths of d being kept.

    The point x climbs within twice its norm, and the direction of d turns, one after the other. In float64
    the nearest pairs see a slope to about 1e-8: enough for GELU divided by 1.1289, off by 3.7e-6.
    """
    generator = sample.generator("ascent")
    for trial in _trials(module, sample):
        # Other rows of each kind: those of one kind begin where those of another do.
        rows = [slice(i * ASCENTS % DRAWN, i * ASCENTS % DRAWN + ASCENTS) for i in range(DRAWN)]
        drawn = [
            (
                _each(lambda part, some=some: part[some], x),
                _each(lambda part, some=some: part[some], y),
            )
            for some, (x, y) in zip(rows, _pairs(trial, sample), strict=False)
        ]
        first = _each(lambda *parts: torch.cat(parts), *[x for x, _ in drawn])
        then = _each(lambda *parts: torch.cat(parts), *[y for _, y in drawn])
        shaped = _shaped_like(first)
        x, d = _flat(first), _flat(_minus(then, first))
        size, apart = (_measure(shaped(each), trial.source) for each in (2 * x, d))

        def moved(x: Tensor, d: Tensor, trial: _Trial = trial, shaped: Any = shaped) -> Tensor:
            return _measure(_minus(module(shaped(x + d)), module(shaped(x))), trial.target)

        def length(rows: Tensor, trial: _Trial = trial, shaped: Any = shaped) -> Tensor:
            return _measure(shaped(rows), trial.source).clamp_min(torch.finfo(sample.dtype).tiny)

        def at_most_as_large(x: Tensor, size: Tensor = size, length: Any = length) -> Tensor:
            return x * (size / length(x)).clamp(max=1).unsqueeze(-1)

        def as_long(d: Tensor, apart: Tensor = apart, length: Any = length) -> Tensor:
            return d * (apart / length(d)).unsqueeze(-1)

        walk, turn = size.unsqueeze(-1) / 4, apart.unsqueeze(-1) / 2
        for _ in range(TURNS):
            x, walk = climb(
                lambda x, d=d: moved(x, d),
                x,
                walk,
                rounds=STEPS,
                generator=generator,
                keep=at_most_as_large,
            )
            d, turn = climb(
                lambda d, x=x: moved(x, d),
                d,
                turn,
                rounds=STEPS,
                generator=generator,
                keep=as_long,
            )
        ends = (_sizes(shaped(each), trial.source) for each in (x, x + d))
        within = _each(torch.maximum, *ends)
        allowed = _slopes(trial.tree, within) * apart
        # A difference of outputs carries the rounding of the outputs, whose sizes are within reach.
        noise = 16 * sample.eps * _reaches(trial.tree, within)
        law = f"{trial}: no ascent beats the sensitivity"
        at_most(moved(x, d) - noise, allowed * (1 + sample.tolerance), law)


def reach_bounds_the_output(module: Composed, sample: Sample) -> None:
    """`‖f(x)‖ ≤ reach(‖x‖)`: sensitivities and offsets bound the sizes of outputs."""
    for trial in _trials(module, sample):
        for size in (0.0, 1e-3, 1.0, 30.0):
            x = _of_size(_drawn(trial, sample, "x", DRAWN), trial.source, size)
            allowed = total(reach(trial.tree, size)) * (1 + sample.tolerance) + sample.eps
            law = f"{trial}: inputs of size {size:g} give outputs within reach"
            at_most(_measure(module(x), trial.target), allowed, law)


def budget_bounds_the_change(module: Composed, sample: Sample) -> None:
    """Steps of unit modular norm move the output by at most `first_order`, to first order.

    For inputs in the unit ball; the steps are tangent and random, and steepest for a random gradient.
    """
    geometries: dict[str, WeightGeometry] = dict(module.geometries())
    budget = allocate(module.tree(), lr=1.0)
    equal(set(geometries), set(budget.shares), f"{type(module).__name__}: weights with a geometry")
    for trial in _trials(module, sample) if geometries else ():
        weights = {name: p.detach() for name, p in trial.net.named_parameters()}
        equal(set(weights), set(geometries), f"{trial}: parameters with a geometry")
        x = _of_size(_drawn(trial, sample, "x", 64), trial.source, 1.0)
        for i in range(6):
            step = {
                name: budget.shares[name] * _unit_step(geometries[name], w, sample, f"{name} {i}")
                for name, w in weights.items()
            }

            def forward(at: dict[str, Tensor], x: Any = x, net: nn.Module = trial.net) -> Any:
                return functional_call(net, at, (x,))

            change = jvp(forward, (weights,), (step,))[1]
            law = f"{trial}: a step of unit length moves the output"
            at_most(
                _measure(change, trial.target), budget.first_order * (1 + sample.tolerance), law
            )


def forward_writes_into_nothing(module: Composed, sample: Sample) -> None:
    """The input and the weights are as they were after a call."""
    net = cast("nn.Module", module)
    for trial in _trials(module, sample):
        x = _drawn(trial, sample, "x", 4)
        parts = _vectors(x)
        inputs = {"input" if len(parts) == 1 else f"input_{i}": p for i, p in enumerate(parts)}
        weights = {name.replace(".", "_"): p for name, p in net.named_parameters()}
        with untouched(f"{trial}", **inputs, **weights), torch.no_grad():
            module(x)


MODULE_LAWS: Final[tuple[ModuleLaw, ...]] = (
    sensitivity_bounds_the_slope,
    reach_bounds_the_output,
    budget_bounds_the_change,
    forward_writes_into_nothing,
    no_ascent_beats_the_sensitivity,
)
"""All laws of a module, for a test to be parametrised over."""


def check_module(module: Composed, sample: Sample | None = None) -> None:
    """Try to refute the mass, sensitivity, offset and spaces that `module` declares.

    A module that takes any space is tried in rms, l2, l1 and linf with `sample.shape[-1]` features.
    Weights are taken as they are, so they must be on their manifolds (in Euclidean space: in their
    unit ball). The module must be in the sample's dtype, float32 by default.

    Raises:
        AssertionError: a declared number is refuted; the message says what was measured.
        ArgumentError: the module takes a tuple of parts that may be anything, which cannot be drawn at random.
    """
    sample = Sample((7,), dtype=torch.float32) if sample is None else sample
    for law in MODULE_LAWS:
        law(module, sample)


def _trials(module: Composed, sample: Sample) -> Iterator[_Trial]:
    tree = module.tree()
    signature = tree.signature
    if signature.source is None:
        for norm in VECTOR_NORMS:
            space = Space(sample.shape[-1], norm)
            yield _Trial(module, tree, space, _closed(signature.target, space))
    elif isinstance(signature.source, Space | ProductSpace) and not is_open(signature.source):
        yield _Trial(module, tree, signature.source, signature.target)
    else:
        raise ArgumentError(
            "check_module(module)",
            "must take vectors, or tuples of them",
            signature.source,
            "Check the modules in front of it and this one in one series.",
        )


def _slopes(tree: Tree, within: Any) -> Tensor:
    """The slope bound of each pair of inputs, of norm at most `within`, part by part."""
    sizes = torch.stack(_vectors(within), dim=-1)
    smallest, largest = (
        slope(tree, _radius(within, each)) for each in (sizes.amin(dim=0), sizes.amax(dim=0))
    )
    if smallest == largest:
        return torch.full_like(sizes[:, 0], largest)
    bounds = [slope(tree, _radius(within, each)) for each in sizes]
    return torch.tensor(bounds, dtype=torch.float64).to(sizes)


def _reaches(tree: Tree, within: Any) -> Tensor:
    """The bound on the output of each input, of norm at most `within`, part by part."""
    sizes = torch.stack(_vectors(within), dim=-1)
    bounds = [total(reach(tree, _radius(within, each))) for each in sizes]
    return torch.tensor(bounds, dtype=torch.float64).to(sizes)


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


def _drawn(trial: _Trial, sample: Sample, name: str, count: int) -> Any:
    """Inputs with independent normal entries."""
    dimensions = (count, *leading(trial.tree))

    def part(space: AnySpace, name: str) -> Any:
        if isinstance(space, ProductSpace):
            return tuple(part(each, f"{name} {i}") for i, each in enumerate(space.parts))
        assert isinstance(space, Space)
        return sample.normal(name, (*dimensions, space.size))

    return part(trial.source, name)


def _pairs(trial: _Trial, sample: Sample) -> Iterator[tuple[Any, Any]]:
    """Inputs at several sizes, moved in random, sign and coordinate directions, near and far."""
    random = _drawn(trial, sample, "move", DRAWN)
    near = sample.eps ** (1 / 4)
    for size in (0.1, 1.0, 10.0):
        x = _each(lambda part, size=size: size * part, _drawn(trial, sample, "x", DRAWN))
        for direction in (random, _each(torch.sign, random), _each(_coordinate, random)):
            for step in (near, 1.0, 30.0):
                yield x, _each(lambda part, move, step=step: part + step * move, x, direction)


def _coordinate(x: Tensor) -> Tensor:
    """One where an entry is the largest of its vector, and zero elsewhere."""
    return torch.zeros_like(x).scatter(-1, x.abs().argmax(dim=-1, keepdim=True), 1.0)


def _unit_step(geometry: WeightGeometry, w: Tensor, sample: Sample, name: str) -> Tensor:
    """A tangent step of unit norm."""
    noise = sample.normal(name, tuple(w.shape))
    step = geometry.manifold.tangent(w, geometry.norm.steepest(noise))
    length = geometry.norm.value(step)
    shaped = length.reshape(length.shape + (1,) * (step.dim() - length.dim()))
    return torch.where(shaped > 1e-3, step / shaped.clamp_min(1e-3), 0.0)


def _of_size(x: Any, space: AnySpace, size: float) -> Any:
    length = _measure(x, space)
    return _each(lambda part: size * part / length.reshape(-1, *[1] * (part.dim() - 1)), x)


def _each(function: Callable[..., Tensor], *inputs: Any) -> Any:
    """`function` of tensors, or of tuples part by part."""
    if isinstance(inputs[0], tuple):
        return tuple(_each(function, *parts) for parts in zip(*inputs, strict=True))
    return function(*inputs)


def _vectors(x: Any) -> list[Tensor]:
    """The tensors of a tuple, in order."""
    return [each for part in x for each in _vectors(part)] if isinstance(x, tuple) else [x]


def _flat(x: Any) -> Tensor:
    """One row an input: its entries, those of a tuple part after part."""
    return torch.cat([part.flatten(1) for part in _vectors(x)], dim=1)


def _shaped_like(x: Any) -> Callable[[Tensor], Any]:
    """What undoes `_flat` of an input like `x`."""
    widths = [part[0].numel() for part in _vectors(x)]

    def shaped(rows: Tensor) -> Any:
        left = iter(rows.split(widths, dim=1))
        return _each(lambda part: next(left).reshape(-1, *part.shape[1:]), x)

    return shaped


def _minus(a: Any, b: Any) -> Any:
    return _each(torch.sub, a, b)


def _sizes(x: Any, space: AnySpace) -> Any:
    """The norm of each input, the largest over the vectors in it; of a tuple part by part."""
    if isinstance(space, ProductSpace):
        return tuple(_sizes(part, each) for part, each in zip(x, space.parts, strict=True))
    assert isinstance(space, Space)
    norms = vector_norm(x, space.norm)
    return norms.flatten(1).amax(dim=1) if norms.dim() > 1 else norms


def _measure(x: Any, space: AnySpace) -> Tensor:
    """The norm of an input; of a tuple the sum over its parts."""
    return torch.stack(_vectors(_sizes(x, space))).sum(dim=0)

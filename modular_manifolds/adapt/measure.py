"""Measured responses: how far a unit step of each weight moves the outputs of a model, on a batch of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.adapt.outputs import Outputs, outputs_of, undisturbed
from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.solvers.select import steepest
from modular_manifolds.wrappers import unwrapped

STACK_MAX_ENTRIES: Final = 2**26
"""Matrices of one shape are solved together, up to so many entries at once: 256 MiB in float32."""

Matrices = Mapping[str, tuple[nn.Parameter, Piece | None, Geometry]]
"""The logical matrices by name: the parameter, the piece of it (None for the whole), and the geometry."""

Progress = Callable[[int, int, str], None]
"""Called with the passes done, all passes, and what was done last."""


def responses(
    model: nn.Module,
    matrices: Matrices,
    batch: Any,
    *,
    loss: Callable[[Any], Tensor] | None = None,
    probes: int = 16,
    generator: torch.Generator | None = None,
    allow_unused: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The rms change of the model's outputs per unit step of each logical matrix along its steepest direction.

    `‖J A‖_F / √(number of outputs)`, with J the derivative of the outputs in the weight, and A the steepest tangent
    direction of unit norm. A is taken for the gradient of the loss if there is one, and for a random function of the
    outputs otherwise. All matrices of a stack move at once, each by a unit step.

    One forward pass and `probes + 1` backward passes serve all weights: for a random cotangent v ~ N(0, I) of the outputs,
    `E <Jᵀv, A>² = ‖J A‖²`. An estimate has a relative standard deviation of about `1/√(2 · probes)`, 18 % for 16 probes.

    The model is left as it was: its modes, gradients, buffers and torch's random numbers. It is measured in eval mode,
    so dropout adds no noise. A compiled or wrapped model is looked through. Sums are in float64.

    Args:
        matrices: the logical matrices by name. Vectors count as matrices with one column.
        batch: a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.
        loss: the loss of what the model returns; without it `.loss` of the outputs, if the model gives one.
        probes: the number of random cotangents of the estimate.
        generator: draws the cotangents; by default one with seed 0.
        allow_unused: whether the outputs may be independent of a weight; its response is then 0.
        progress: called as `progress(done, total, words)` after each pass.

    Returns:
        A response for each name of `matrices`, in their order. It is 0 if the outputs do not depend on the weight to first
        order, as for a weight behind a projection that is still zero. It may be as small as rounding if the dependence
        cancels, as for the bias of attention keys.

    Raises:
        ArgumentError: a weight is frozen, has no numbers (meta device), or does not reach the
            outputs; the model gives no outputs to measure; or another argument breaks its rule.
        NonFiniteError: a gradient holds NaN or infinity.
    """
    net = _checked_model(model)
    probes = check_count(probes, argument="responses(probes)", what="random cotangents")
    weights = _Weights.of(matrices)
    total = probes + 2
    report: Progress = progress if progress is not None else _silent
    if not weights.rows:
        return {}
    with undisturbed(net):
        outputs = outputs_of(net, batch, loss)
        report(1, total, "forward pass")
        cotangents = _Cotangents(outputs.tensor, generator)
        directions = _directions(weights, outputs, cotangents, allow_unused=allow_unused)
        report(2, total, "steepest directions")
        squares = torch.zeros(len(weights.rows), dtype=torch.float64)
        for number in range(1, probes + 1):
            gradients = weights.gradients(outputs.tensor, next(cotangents))
            squares += _derivatives(weights, gradients, directions).square()
            report(number + 2, total, f"probe {number} of {probes}")
    entries = outputs.tensor.numel()
    found = (squares / (probes * entries)).sqrt().tolist()
    for row, response in zip(weights.rows, found, strict=True):
        if not math.isfinite(response):
            raise _not_finite(row.name)
    return {row.name: response for row, response in zip(weights.rows, found, strict=True)}


@dataclass(frozen=True)
class _Row:
    """A logical matrix: its name, the place of its parameter, its piece and its geometry."""

    name: str
    place: int
    piece: Piece | None
    geometry: Geometry

    def read(self, stored: Tensor) -> Tensor:
        """The matrices inside a tensor of the parameter's shape, shape (*batch, m, n)."""
        found = stored if self.piece is None else self.piece.read(stored)
        return found.reshape(-1, 1) if found.dim() < 2 else found


@dataclass(frozen=True)
class _Weights:
    """The rows, and the parameters that they lie in, each once."""

    rows: tuple[_Row, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, matrices: Matrices) -> _Weights:
        places: dict[int, int] = {}
        parameters: list[nn.Parameter] = []
        rows: list[_Row] = []
        for name, (parameter, piece, geometry) in matrices.items():
            _check_parameter(name, parameter)
            place = places.setdefault(id(parameter), len(parameters))
            if place == len(parameters):
                parameters.append(parameter)
            rows.append(_Row(name, place, piece, geometry))
        return cls(tuple(rows), tuple(parameters))

    def gradients(self, of: Tensor, cotangent: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """The gradient of each parameter, None for one that `of` does not depend on; the graph is kept."""
        return torch.autograd.grad(
            of, self.parameters, cotangent, retain_graph=True, allow_unused=True
        )


class _Cotangents(Iterator[Tensor]):
    """Independent standard normal tensors of the shape of the outputs."""

    def __init__(self, outputs: Tensor, generator: torch.Generator | None) -> None:
        self.outputs = outputs
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator

    def __next__(self) -> Tensor:
        like = self.outputs
        # The same numbers for every device and dtype of the outputs.
        drawn = torch.randn(
            like.shape,
            generator=self.generator,
            device=self.generator.device,
            dtype=torch.promote_types(like.dtype, torch.float32),
        )
        return drawn.to(like)


def _directions(
    weights: _Weights, outputs: Outputs, cotangents: Iterator[Tensor], *, allow_unused: bool
) -> list[Tensor | None]:
    """The steepest direction of each row, shape (*batch, m, n); None for a weight that does not reach the outputs.

    The cotangent that stands in for a loss is used for nothing else: the directions must not depend on the probes.
    """
    random = weights.gradients(outputs.tensor, next(cotangents))
    gradients = random
    if outputs.loss is not None:
        # A loss may ignore a weight that the outputs depend on.
        gradients = tuple(
            by_chance if of_loss is None or not bool(of_loss.any()) else of_loss
            for of_loss, by_chance in zip(weights.gradients(outputs.loss), random, strict=True)
        )
    found: list[Tensor | None] = [None] * len(weights.rows)
    for row in weights.rows:
        if random[row.place] is None and not allow_unused:
            raise ArgumentError(
                f"matrices['{row.name}']",
                "must be a weight that the outputs depend on",
                "a weight without a gradient on this batch",
                "Leave it out or freeze it, pass a batch that uses it, or allow_unused=True.",
            )
    for stack in _stacks(weights, gradients):
        rows = [weights.rows[number] for number in stack]
        points = [row.read(weights.parameters[row.place].detach()) for row in rows]
        slopes = [row.read(_given(gradients[row.place])) for row in rows]
        for row, gradient in zip(rows, slopes, strict=True):
            if not bool(torch.isfinite(gradient).all()):
                raise _not_finite(row.name)
        solved = _steepest(rows[0].geometry, points, slopes)
        for number, direction in zip(stack, solved, strict=True):
            found[number] = direction
    return found


def _stacks(weights: _Weights, gradients: Sequence[Tensor | None]) -> Iterator[list[int]]:
    """The numbers of the rows that are solved together: one geometry, one shape, dtype and device."""
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(weights.rows):
        gradient = gradients[row.place]
        if gradient is not None:
            matrices = row.read(gradient)
            key = (row.geometry, matrices.shape[-2:], matrices.dtype, matrices.device)
            groups.setdefault(key, []).append(number)
    for group in groups.values():
        stack: list[int] = []
        entries = 0
        for number in group:
            row = weights.rows[number]
            size = row.read(weights.parameters[row.place].detach()).numel()
            if stack and entries + size > STACK_MAX_ENTRIES:
                yield stack
                stack, entries = [], 0
            stack.append(number)
            entries += size
        yield stack


def _steepest(
    geometry: Geometry, points: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The steepest directions of matrices of one shape (m, n), solved as one stack."""
    point, gradient = (
        torch.cat([at_least_float32(each).reshape(-1, *each.shape[-2:]) for each in tensors])
        for tensors in (points, gradients)
    )
    direction = steepest(geometry.manifold, geometry.norm, point, gradient).direction
    counts = [math.prod(each.shape[:-2]) for each in points]
    return [
        found.reshape(each.shape)
        for found, each in zip(direction.split(counts), points, strict=True)
    ]


def _derivatives(
    weights: _Weights, gradients: Sequence[Tensor | None], directions: Sequence[Tensor | None]
) -> Tensor:
    """`<Jᵀv, A>` of each row, shape (rows,), in float64 in the host's memory."""
    found: list[Tensor] = []
    for row, direction in zip(weights.rows, directions, strict=True):
        gradient = gradients[row.place]
        if gradient is None or direction is None:
            found.append(torch.zeros((), dtype=torch.float64))
        else:
            product = at_least_float32(row.read(gradient)) * direction
            found.append(product.sum(dtype=torch.float64))
    # One wait for each device instead of one for each weight.
    devices = {each.device for each in found}
    result = torch.zeros(len(found), dtype=torch.float64)
    for device in devices:
        places = [number for number, each in enumerate(found) if each.device == device]
        result[places] = torch.stack([found[number] for number in places]).cpu()
    return result


def _checked_model(model: nn.Module) -> nn.Module:
    net = unwrapped(model)
    if not isinstance(net, nn.Module):
        raise ArgumentError(
            "responses(model)", "must be a torch.nn.Module", type(model).__name__, "Pass the model."
        )
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.is_meta:
            raise ArgumentError(
                "responses(model)",
                "must have its weights in memory",
                f"'{name}' on the meta device",
                "Call model.to_empty(device=...) and load or initialise the weights first.",
            )
    return net


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    where = f"matrices['{name}']"
    if not isinstance(parameter, nn.Parameter) or not parameter.is_floating_point():
        raise ArgumentError(
            where,
            "must be a parameter of real floating-point numbers",
            getattr(parameter, "dtype", type(parameter).__name__),
            "Pass a weight of the model.",
        )
    if not parameter.requires_grad:
        raise ArgumentError(
            where, "must be trainable", "a frozen weight", "Leave out weights that do not move."
        )


def _given(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient


def _not_finite(name: str) -> NonFiniteError:
    return NonFiniteError(
        f"matrices['{name}']",
        "must have a finite gradient of the outputs",
        "NaN or infinity",
        "Check the weights and the batch, or measure in float32.",
    )


def _silent(done: int, total: int, words: str) -> None:
    del done, total, words

"""Measured responses: how far a unit step of each weight moves the outputs of a model on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.outputs import Outputs, outputs_of, preserved_state
from modular_manifolds.adaptation.progress import Progress
from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.solvers.selection import steepest
from modular_manifolds.wrappers import unwrapped

STACK_MAX_ENTRIES: Final = 2**26
"""The largest stack of matrices that one call solves: 256 MiB in float32."""

Matrices = Mapping[str, tuple[nn.Parameter, Piece | None, Geometry]]
"""The logical matrices by name: the parameter, its piece (None for the whole parameter), and the geometry."""


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
    direction of unit norm for the gradient of the loss, or of a random function of the outputs if there is no loss. All
    matrices of a stack move at once, each by a unit step.

    One forward pass and `probes + 1` backward passes measure all weights: for a random cotangent v ~ N(0, I) of the
    outputs, `E <Jᵀv, A>² = ‖J A‖²`. The relative standard deviation is about `1/√(2 · probes)`, 18 % for 16 probes.

    The model runs in eval mode, without compiled parts. Only batch and instance norms in training mode stay in it, but no
    `nn.SyncBatchNorm`. Afterwards modes, gradients, buffers and torch's random state are unchanged. Sums are in float64.

    Args:
        matrices: the logical matrices by name. Vectors count as matrices with one column.
        batch: a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.
        loss: maps the model's result to the loss; by default the result's `.loss`, if it has one.
        probes: the number of random cotangents.
        generator: draws the cotangents; by default one with seed 0.
        allow_unused: whether to accept weights that the outputs do not depend on; their response is 0.
        progress: called as `progress(done, total, words)` after each pass.

    Returns:
        The response for each name of `matrices`, in their order. It is 0 if the outputs do not depend on the weight to first
        order, as for a weight in front of a zero projection. It may be as small as rounding if the dependence cancels, as
        for the bias of attention keys.

    Raises:
        ArgumentError: a weight is frozen, is on the meta device, or does not reach the outputs; the model returns no
            usable outputs; or another argument breaks its rule.
        NonFiniteError: a gradient holds NaN or infinity.
    """
    net = _checked_model(model)
    probes = check_count(probes, argument="responses(probes)", what="random cotangents")
    weights = _Weights.of(matrices)
    total = probes + 2
    if not weights.rows:
        return {}
    with preserved_state(net):
        outputs = outputs_of(net, batch, loss)
        if progress is not None:
            progress(1, total, "forward pass")
        cotangents = _Cotangents(outputs.tensor, generator)
        directions = _directions(weights, outputs, cotangents, allow_unused=allow_unused)
        if progress is not None:
            progress(2, total, "steepest directions")
        squares = torch.zeros(len(weights.rows), dtype=torch.float64)
        for number in range(1, probes + 1):
            gradients = weights.gradients(outputs.tensor, next(cotangents))
            squares += _derivatives(weights, gradients, directions).square()
            if progress is not None:
                progress(number + 2, total, f"probe {number} of {probes}")
    entries = outputs.tensor.numel()
    means = (squares / (probes * entries)).sqrt().tolist()
    by_name = {row.name: mean for row, mean in zip(weights.rows, means, strict=True)}
    for name, response in by_name.items():
        if not math.isfinite(response):
            raise _not_finite(name)
    return by_name


@dataclass(frozen=True)
class _Row:
    """A logical matrix: its name, the index of its parameter, its piece and its geometry."""

    name: str
    index: int
    piece: Piece | None
    geometry: Geometry

    def read(self, stored: Tensor) -> Tensor:
        """The row's entries of a tensor of the parameter's shape, in shape (*batch, m, n)."""
        matrices = stored if self.piece is None else self.piece.read(stored)
        return matrices.reshape(-1, 1) if matrices.dim() < 2 else matrices


@dataclass(frozen=True)
class _Weights:
    """The rows and their parameters, each parameter once."""

    rows: tuple[_Row, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, matrices: Matrices) -> _Weights:
        indices: dict[int, int] = {}
        parameters: list[nn.Parameter] = []
        rows: list[_Row] = []
        for name, (parameter, piece, geometry) in matrices.items():
            _check_parameter(name, parameter)
            index = indices.setdefault(id(parameter), len(parameters))
            if index == len(parameters):
                parameters.append(parameter)
            rows.append(_Row(name, index, piece, geometry))
        return cls(tuple(rows), tuple(parameters))

    def gradients(
        self, function: Tensor, cotangent: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """The gradient of `function` in each parameter, None if it does not depend on it; the graph is kept."""
        return torch.autograd.grad(
            function, self.parameters, cotangent, retain_graph=True, allow_unused=True
        )


class _Cotangents(Iterator[Tensor]):
    """Independent standard normal tensors of the shape of the outputs."""

    def __init__(self, outputs: Tensor, generator: torch.Generator | None) -> None:
        self.outputs = outputs
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator

    def __next__(self) -> Tensor:
        like = self.outputs
        # The numbers do not depend on the device and dtype of the outputs.
        cotangent = torch.randn(
            like.shape,
            generator=self.generator,
            device=self.generator.device,
            dtype=torch.promote_types(like.dtype, torch.float32),
        )
        return cotangent.to(like)


def _directions(
    weights: _Weights, outputs: Outputs, cotangents: Iterator[Tensor], *, allow_unused: bool
) -> list[Tensor | None]:
    """The steepest direction of each row, shape (*batch, m, n); None for a weight that does not reach the outputs.

    The cotangent that replaces a missing loss is not a probe, so that directions and probes are independent.
    """
    random = weights.gradients(outputs.tensor, next(cotangents))
    gradients = random
    if outputs.loss is not None:
        # The outputs may depend on a weight that the loss ignores.
        gradients = tuple(
            of_random if of_loss is None or not bool(of_loss.any()) else of_loss
            for of_loss, of_random in zip(weights.gradients(outputs.loss), random, strict=True)
        )
    directions: list[Tensor | None] = [None] * len(weights.rows)
    for row in weights.rows:
        if random[row.index] is None and not allow_unused:
            raise ArgumentError(
                f"the weight '{row.name}'",
                "must be one that the outputs depend on, for its response to be measured",
                "no gradient on this batch",
                "Pass a batch that uses it, freeze it, or add mm.Skip or mm.Fallback for it.",
            )
    for stack in _stacks(weights, gradients):
        rows = [weights.rows[number] for number in stack]
        points = [row.read(weights.parameters[row.index].detach()) for row in rows]
        slopes = [
            row.read(gradient) for row in rows if (gradient := gradients[row.index]) is not None
        ]
        for row, gradient in zip(rows, slopes, strict=True):
            if not bool(torch.isfinite(gradient).all()):
                raise _not_finite(row.name)
        solutions = _steepest(rows[0].geometry, points, slopes)
        for number, direction in zip(stack, solutions, strict=True):
            directions[number] = direction
    return directions


def _stacks(weights: _Weights, gradients: Sequence[Tensor | None]) -> Iterator[list[int]]:
    """Lists of row numbers that one call solves: one geometry, shape, dtype and device."""
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(weights.rows):
        gradient = gradients[row.index]
        if gradient is not None:
            matrices = row.read(gradient)
            key = (row.geometry, matrices.shape[-2:], matrices.dtype, matrices.device)
            groups.setdefault(key, []).append(number)
    for group in groups.values():
        stack: list[int] = []
        entries = 0
        for number in group:
            row = weights.rows[number]
            size = row.read(weights.parameters[row.index].detach()).numel()
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
        part.reshape(each.shape) for part, each in zip(direction.split(counts), points, strict=True)
    ]


def _derivatives(
    weights: _Weights, gradients: Sequence[Tensor | None], directions: Sequence[Tensor | None]
) -> Tensor:
    """`<Jᵀv, A>` of each row, shape (rows,), in float64 in the host's memory."""
    products: list[Tensor] = []
    for row, direction in zip(weights.rows, directions, strict=True):
        gradient = gradients[row.index]
        if gradient is None or direction is None:
            products.append(torch.zeros((), dtype=torch.float64))
        else:
            product = at_least_float32(row.read(gradient)) * direction
            products.append(product.sum(dtype=torch.float64))
    # The host waits once for each device, not for each weight.
    devices = {each.device for each in products}
    result = torch.zeros(len(products), dtype=torch.float64)
    for device in devices:
        indices = [number for number, each in enumerate(products) if each.device == device]
        result[indices] = torch.stack([products[number] for number in indices]).cpu()
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
    where = f"the weight '{name}'"
    if not isinstance(parameter, nn.Parameter) or not parameter.is_floating_point():
        raise ArgumentError(
            where,
            "must be a parameter of real floating-point numbers",
            getattr(parameter, "dtype", type(parameter).__name__),
            "Pass a weight of the model.",
        )
    if not parameter.requires_grad:
        raise ArgumentError(
            where, "must be trainable", "a frozen weight", "Leave out frozen weights."
        )


def _not_finite(name: str) -> NonFiniteError:
    return NonFiniteError(
        f"the weight '{name}'",
        "must have a finite gradient of the outputs",
        "NaN or infinity",
        "Check the weights and the batch, or measure in float32.",
    )

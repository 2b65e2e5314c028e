"""Attacks: the search for a misclassified neighbour, as a check of the certified radius."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from modular_manifolds.arguments import check_count
from modular_manifolds.certificates.empirical import as_factors
from modular_manifolds.linalg.snapshot import plain_surroundings, snapshot

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
"""A function from a model, points, labels and an l2 radius to nearby points that the model may misclassify."""

PATH_LENGTH_IN_RADII: Final = 2.5
"""The total length of the steps from one start, in radii: enough to cross the ball and turn."""
CANDIDATE_CLASSES: Final = 10
"""The number of classes whose distance is estimated, with one backward pass each."""


@dataclass(frozen=True)
class ProjectedGradient:
    """Projected gradient ascent in l2 on the margin `f_j − f_c` of another class j over the label c.

    Start k targets the k-th nearest class of the linearised network, by the distance `(f_c − f_j)/‖∇(f_c − f_j)‖`. The first
    start is the point itself, the others are random in the ball. Steps follow the normalised gradient, so the attack does
    not depend on the scale of the outputs. The steps from one start get shorter and have a total length of 2.5 radii. The
    result is the visited point with the largest margin over all classes. A misclassified point is not attacked further.

    The attack uses the whole ball, like the certificate, and does not clip pixels. Survival is not a proof: a point may
    still have a misclassified neighbour.

    Args:
        steps: the number of gradient steps from each start.
        restarts: the number of starts for each point.
        seed: the seed of the random starts; torch's global generator is not used.

    Raises:
        ArgumentError: a number is not whole or below 1.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018); for margins as the
    objective Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017); for the nearest class
    Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool" (2016).
    """

    steps: int = 40
    restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            count = check_count(value, argument=f"ProjectedGradient({name})", what=name)
            object.__setattr__(self, name, count)

    def __str__(self) -> str:
        return f"projected gradient on the margin, {self.steps} steps, {self.restarts} starts"

    def __call__(self, model: nn.Module, points: Tensor, labels: Tensor, radius: float) -> Tensor:
        """The points of largest margin found within `radius` of `points`, of shape (batch, …), in their dtype.

        A module is attacked as a copy without hooks, in evaluation mode.
        """
        with plain_surroundings(points.device):
            generator = torch.Generator("cpu").manual_seed(self.seed)
            centre = points.detach().clone()
            attacked = snapshot(model) if isinstance(model, nn.Module) else model
            search = _Search(attacked, centre, labels.detach().clone().to(points.device).long())
            target_classes = search.nearest_classes(self.restarts)
            for start in range(self.restarts if target_classes.shape[1] else 0):
                rows = search.unbroken_rows()
                if not len(rows):
                    break
                points_left = centre[rows]
                first = (
                    points_left
                    if start == 0
                    else points_left + _random_in_ball(points_left, radius, generator)
                )
                target_class = target_classes[rows, start % target_classes.shape[1]]
                self._climb(search, rows, target_class, first, radius, generator)
            return search.best

    def _climb(
        self,
        search: _Search,
        rows: Tensor,
        target_class: Tensor,
        x: Tensor,
        radius: float,
        generator: torch.Generator,
    ) -> None:
        for step in range(self.steps):
            gradient = search.visit(rows, x, target_class)
            # Lengths decrease from twice the mean to almost zero.
            length = (
                PATH_LENGTH_IN_RADII
                * radius
                * 2
                * (self.steps - step)
                / (self.steps * (self.steps + 1))
            )
            moved = x + length * _unit(gradient, generator) - search.centre[rows]
            x = search.centre[rows] + _clip_length(moved, radius)
        search.visit(rows, x, target_class)


class _Search:
    """The best point of each row so far, and its margin."""

    def __init__(self, model: Callable[[Tensor], Tensor], centre: Tensor, labels: Tensor) -> None:
        self.model, self.centre, self.labels = model, centre, labels
        self.best = centre.clone()
        self.margins = centre.new_full((len(centre),), -math.inf)

    def unbroken_rows(self) -> Tensor:
        """The rows that are still predicted correctly."""
        return (~(self.margins > 0)).nonzero().flatten()

    def nearest_classes(self, count: int) -> Tensor:
        """Up to `count` other classes for each row, sorted by their distance for the linearised network.

        Candidates are the `CANDIDATE_CLASSES` classes with the highest scores.
        """
        x = self.centre.clone().requires_grad_()
        scores = self.model(x)
        own = self.labels.unsqueeze(1)
        self._record(torch.arange(len(x), device=x.device), x.detach(), scores.detach())
        others = scores.detach().scatter(1, own, -math.inf)
        candidates = others.topk(min(CANDIDATE_CLASSES, scores.shape[1] - 1), dim=1).indices
        distances = torch.full_like(candidates, math.inf, dtype=scores.dtype)
        for column, classes in enumerate(candidates.unbind(dim=1)):
            margin = (scores.gather(1, own) - scores.gather(1, classes.unsqueeze(1))).squeeze(1)
            size = _lengths(_gradient_of(margin, x))
            distances[:, column] = torch.where(size > 0, margin.detach() / size, math.inf)
        return candidates.gather(1, distances.argsort(dim=1, stable=True))[:, :count]

    def visit(self, rows: Tensor, x: Tensor, target_class: Tensor) -> Tensor:
        """Record the points x with larger margins, and return the gradient of the margin of `target_class`."""
        x = x.detach().requires_grad_()
        scores = self.model(x)
        self._record(rows, x.detach(), scores.detach())
        target, own = (
            scores.gather(1, each.unsqueeze(1)) for each in (target_class, self.labels[rows])
        )
        return _gradient_of((target - own).squeeze(1), x)

    def _record(self, rows: Tensor, x: Tensor, scores: Tensor) -> None:
        own = self.labels[rows].unsqueeze(1)
        others = scores.scatter(1, own, -math.inf).amax(dim=1)
        margins = (others - scores.gather(1, own).squeeze(1)).to(self.margins)
        better = margins > self.margins[rows]
        self.margins[rows[better]] = margins[better]
        self.best[rows[better]] = x[better]


def _gradient_of(values: Tensor, x: Tensor) -> Tensor:
    """The gradient of each row's value; zero if it does not exist or is not finite."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=True, materialize_grads=True)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _unit(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """The direction of each gradient; a random one if the gradient is zero."""
    noise = _normal(gradient, generator)
    largest = gradient.flatten(1).abs().amax(dim=1)
    # Divide by the largest entry first, because squares of tiny or huge entries leave the dtype's range.
    direction = torch.where(
        as_factors(largest > 0, gradient),
        gradient / as_factors(torch.where(largest > 0, largest, 1.0), gradient),
        noise,
    )
    return direction / as_factors(_lengths(direction), direction)


def _random_in_ball(like: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """A random vector for each row, uniform in the ball."""
    direction = _unit(torch.zeros_like(like), generator)
    share = torch.rand(len(like), generator=generator, dtype=torch.float64, device="cpu")
    sizes = radius * share ** (1 / max(like[0].numel(), 1))
    return direction * as_factors(sizes.to(like), like)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu")
    return noise.to(like)


def _clip_length(moved: Tensor, radius: float) -> Tensor:
    # A margin that exceeds the rounding of a length.
    limit = radius * (1 - 8 * torch.finfo(moved.dtype).eps)
    shrink = limit / _lengths(moved).clamp_min(torch.finfo(moved.dtype).tiny)
    return moved * as_factors(shrink.clamp(max=1.0), moved)

"""Attacks: the search for a neighbour of another class, to set beside the certified radius."""

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
"""A map from a model, points, their labels and an l2 radius to points nearby that the model may get wrong."""

PATH: Final = 2.5
"""The length of all steps of one start together, in radii: enough to cross the ball and to correct the course."""
CANDIDATES: Final = 10
"""Classes whose distance is estimated, one backward pass each."""


@dataclass(frozen=True)
class ProjectedGradient:
    """Projected gradient ascent in l2 on the margin `f_j − f_c` of another class j over the label c.

    Start k aims at the class that is k-th nearest to the point if the network were linear there, `(f_c − f_j)/‖∇(f_c − f_j)‖`.
    The first start is the point itself, the others are random in the ball. Steps go along the normalised gradient, so
    the attack does not depend on the scale of the outputs. The steps of one start become shorter and are 2.5 radii long in
    all. The result is the point with the largest margin over all classes that was met, so no point ends with a smaller margin
    than it began with. A point that is wrong, from the beginning or after a start, is left as it is.

    The ball is not cut to the range of pixels: the certificate is for the whole ball, so the whole ball is attacked. The
    result is an attack's, not a proof: a point that survives may still have a neighbour of another class.

    Args:
        steps: gradient steps from each start, and starts for each point.
        restarts: gradient steps from each start, and starts for each point.
        seed: of the random starts; torch's global generator stays as it was.

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

        A module is attacked in evaluation mode, on a copy without hooks; any other function as it is.
        """
        with plain_surroundings(points.device):
            generator = torch.Generator("cpu").manual_seed(self.seed)
            centre = points.detach().clone()
            attacked = snapshot(model) if isinstance(model, nn.Module) else model
            search = _Search(attacked, centre, labels.detach().clone().to(points.device).long())
            aims = search.nearest_classes(self.restarts)
            for start in range(self.restarts if aims.shape[1] else 0):
                rows = search.standing()
                if not len(rows):
                    break
                here = centre[rows]
                first = here if start == 0 else here + _in_the_ball(here, radius, generator)
                aim = aims[rows, start % aims.shape[1]]
                self._climb(search, rows, aim, first, radius, generator)
            return search.best

    def _climb(
        self,
        search: _Search,
        rows: Tensor,
        aim: Tensor,
        x: Tensor,
        radius: float,
        generator: torch.Generator,
    ) -> None:
        for step in range(self.steps):
            gradient = search.visit(rows, x, aim)
            # From twice the mean length down to almost nothing: far first, then exact.
            length = PATH * radius * 2 * (self.steps - step) / (self.steps * (self.steps + 1))
            moved = x + length * _unit(gradient, generator) - search.centre[rows]
            x = search.centre[rows] + _no_longer_than(moved, radius)
        search.visit(rows, x, aim)


class _Search:
    """The best point of each row so far, and its margin."""

    def __init__(self, model: Callable[[Tensor], Tensor], centre: Tensor, labels: Tensor) -> None:
        self.model, self.centre, self.labels = model, centre, labels
        self.best = centre.clone()
        self.margins = centre.new_full((len(centre),), -math.inf)

    def standing(self) -> Tensor:
        """The rows without a wrong prediction so far."""
        return (~(self.margins > 0)).nonzero().flatten()

    def nearest_classes(self, count: int) -> Tensor:
        """Up to `count` other classes a row, the nearest first for the network made linear at the point.

        Candidates are the `CANDIDATES` classes of highest scores.
        """
        x = self.centre.clone().requires_grad_()
        scores = self.model(x)
        own = self.labels.unsqueeze(1)
        self._keep(torch.arange(len(x), device=x.device), x.detach(), scores.detach())
        others = scores.detach().scatter(1, own, -math.inf)
        candidates = others.topk(min(CANDIDATES, scores.shape[1] - 1), dim=1).indices
        distances = torch.full_like(candidates, math.inf, dtype=scores.dtype)
        for place, classes in enumerate(candidates.unbind(dim=1)):
            behind = (scores.gather(1, own) - scores.gather(1, classes.unsqueeze(1))).squeeze(1)
            size = _lengths(_slope(behind, x))
            distances[:, place] = torch.where(size > 0, behind.detach() / size, math.inf)
        return candidates.gather(1, distances.argsort(dim=1, stable=True))[:, :count]

    def visit(self, rows: Tensor, x: Tensor, aim: Tensor) -> Tensor:
        """Keep the points x that are better, and give the gradient of the margin of the classes `aim`."""
        x = x.detach().requires_grad_()
        scores = self.model(x)
        self._keep(rows, x.detach(), scores.detach())
        wanted, own = (scores.gather(1, each.unsqueeze(1)) for each in (aim, self.labels[rows]))
        return _slope((wanted - own).squeeze(1), x)

    def _keep(self, rows: Tensor, x: Tensor, scores: Tensor) -> None:
        own = self.labels[rows].unsqueeze(1)
        others = scores.scatter(1, own, -math.inf).amax(dim=1)
        margins = (others - scores.gather(1, own).squeeze(1)).to(self.margins)
        better = margins > self.margins[rows]
        self.margins[rows[better]] = margins[better]
        self.best[rows[better]] = x[better]


def _slope(values: Tensor, x: Tensor) -> Tensor:
    """The gradient of each row's value; zero if it does not depend on the row, or is not finite."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(values.sum(), x, retain_graph=True, materialize_grads=True)
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _unit(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """The direction of each gradient; a random one if the gradient is zero."""
    noise = _normal(gradient, generator)
    largest = gradient.flatten(1).abs().amax(dim=1)
    # Divided by its largest entry first: the square of a tiny or huge entry would leave the dtype's range.
    direction = torch.where(
        as_factors(largest > 0, gradient),
        gradient / as_factors(torch.where(largest > 0, largest, 1.0), gradient),
        noise,
    )
    return direction / as_factors(_lengths(direction), direction)


def _in_the_ball(like: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """A random vector for each row, uniform in the ball."""
    direction = _unit(torch.zeros_like(like), generator)
    share = torch.rand(len(like), generator=generator, dtype=torch.float64, device="cpu")
    sizes = radius * share ** (1 / max(like[0].numel(), 1))
    return direction * as_factors(sizes.to(like), like)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu")
    return noise.to(like)


def _no_longer_than(moved: Tensor, radius: float) -> Tensor:
    # Inside by more than a length is rounded.
    inside = radius * (1 - 8 * torch.finfo(moved.dtype).eps)
    shrink = inside / _lengths(moved).clamp_min(torch.finfo(moved.dtype).tiny)
    return moved * as_factors(shrink.clamp(max=1.0), moved)

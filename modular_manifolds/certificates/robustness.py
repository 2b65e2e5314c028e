"""Certified robustness: how many predictions no small change of the input can alter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.certificates.attack import Attack
from modular_manifolds.certificates.bounds import bounds_of, one_space_to_another
from modular_manifolds.certificates.examined import Examined, examined
from modular_manifolds.certificates.input_scale import InputScale, unscaled
from modular_manifolds.certificates.inputs import flattens, item_dims, misfit, numbers, real
from modular_manifolds.certificates.margins import certified_radii, pair_bounds, rounding_of_outputs
from modular_manifolds.certificates.robustness_report import RobustnessReport, RobustnessRow
from modular_manifolds.composition.space import Space
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError, CertificateError, NonFiniteError, ShapeError
from modular_manifolds.linalg.snapshot import device_of
from modular_manifolds.nn.composed import Composed

RADII: Final = (36 / 255, 72 / 255, 108 / 255)
"""The l2 radii at which CIFAR-10's certified accuracies are usually given, for pixels in [0, 1]."""
CHUNK: Final = 1024
"""Points in one forward pass."""


def robustness(
    net: Composed,
    inputs: Any,
    labels: Any,
    *,
    radii: Sequence[float] = RADII,
    scale: InputScale | None = None,
    attack: Attack | None = None,
) -> RobustnessReport:
    """Certify predictions: class c at x stays the largest output within `min_j (f_c − f_j)(x)/K[c, j]`.

    K is √2 times the certified bound of the network from l2 to l2, or, if the last module is a
    Linear W after a map of bound B and it is smaller, `‖w_c − w_j‖₂ B`. The network runs in float64; margins
    are lowered by a bound on its rounding, and the radius is rounded down. Ties and wrong predictions
    are certified at no radius. In float32 a network computes a slightly different function, of which
    nothing is claimed.

    Args:
        net: a classifier; its outputs are the classes' scores. It is examined in evaluation mode, on a copy without hooks.
        inputs: as the network sees them, in any shape that it takes: vectors, or images for a network that flattens them.
        labels: whole numbers of any dtype, one a point: of the shape of the inputs less that of one point.
        radii: l2 radii in the units of `scale`.
        scale: how the inputs were scaled; radii are in the network's own units without it.
        attack: for example `mm.ProjectedGradient()`. Each radius is attacked with the points that
            smaller ones left right.

    Raises:
        ArgumentError: a label or a radius is out of range, or a weight is complex.
        ShapeError: inputs, labels and network do not fit.
        NonFiniteError: inputs, outputs or a weight hold NaN or infinity.
        SpaceError: `mm.lipschitz` refuses the network.
        CertificateError: the attack changed a certified prediction, so a declared number is wrong.

    Source: Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training" (2018), proposition 1.
    """
    checked = tuple(sorted({_radius(each) for each in radii}))
    with examined(net, argument="robustness(net)") as seen:
        scaled = unscaled() if scale is None else _own(scale)
        return _report(seen, inputs, labels, checked, scaled, attack)


def _report(
    seen: Examined,
    inputs: Any,
    labels: Any,
    checked: tuple[float, ...],
    scaled: InputScale,
    attack: Attack | None,
) -> RobustnessReport:
    # Predictions are those of evaluation mode, and so are their bounds.
    network, tree = seen.network, seen.tree
    one_space_to_another(tree, "robustness(net)")
    points, truth = _points(tree, inputs, labels)
    points = points.to(device_of(network))
    known = bounds_of(tree, input_norm="l2", output_norm="l2")
    bound = math.inf if math.isnan(known.certified) else known.certified
    outputs = _outputs(network, points)
    _check_outputs(outputs, truth)
    right = outputs.argmax(dim=1) == truth
    pairs, last_weight = pair_bounds(tree, bound, outputs.shape[1])
    longest = float(torch.linalg.vector_norm(points.flatten(1), dim=1).amax())
    error = rounding_of_outputs(tree, longest)
    own = certified_radii(outputs, truth, pairs, error) * scaled.shortest
    left = _attacked(network, points, truth, right, own, checked, scaled, attack)
    return RobustnessReport(
        clean=_part(right),
        rows=tuple(
            RobustnessRow(radius, _part(own > radius), survivors)
            for radius, survivors in zip(checked, left, strict=True)
        ),
        radii=tuple(own.tolist()),
        lipschitz=bound,
        shortest=scaled.shortest,
        unit=scaled.unit,
        pairs=last_weight,
        attack=None if attack is None else getattr(attack, "__name__", str(attack)),
        unbounded=tuple(
            f"{each.leaf.path or '(whole)'} ({each.leaf.label})"
            for each in known.proved.passages
            if not math.isfinite(each.slope)
        ),
    )


def _own(scale: InputScale) -> InputScale:
    """The same scale in tensors of our own: the caller's may have been made in inference mode, or have a history."""
    mean, std = (each.detach().clone() for each in (scale.mean, scale.std))
    return replace(scale, mean=mean, std=std)


class _Scaled(nn.Module):
    """The network as a function of what radii are measured in."""

    def __init__(self, network: nn.Module, scale: InputScale) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, u: Tensor) -> Tensor:
        return self.network(self.scale.seen(u))


def _attacked(
    network: nn.Module,
    points: Tensor,
    labels: Tensor,
    right: Tensor,
    own: Tensor,
    radii: Sequence[float],
    scale: InputScale,
    attack: Attack | None,
) -> list[float | None]:
    """The part of all points that is still right after the attack at each radius."""
    if attack is None:
        return [None] * len(radii)
    model = _Scaled(network, scale).eval()
    start = scale.undone(points)
    standing = right.clone()
    left: list[float | None] = []
    for radius in radii:
        for some in standing.nonzero().flatten().split(CHUNK) if radius > 0 else ():
            there = some.to(points.device)
            found = attack(model, start[there], labels[some].to(points.device), radius)
            near = _into_the_ball(found, start[there], radius)
            with torch.no_grad():
                kept = model(near).argmax(dim=1).cpu() == labels[some]
            broken = some[~kept & (own[some] > radius)]
            if len(broken):
                raise CertificateError(
                    f"point {int(broken[0])}",
                    f"must keep its class within the l2 radius {float(own[broken[0]]):.6g} in {scale.unit}",
                    f"another class within {radius:.6g}",
                    "A declared sensitivity is wrong: hold the network's own bonds to "
                    "mm.testing.check_module. If it has none, please report this.",
                )
            standing[some] = kept
        left.append(_part(standing))
    return left


def _into_the_ball(found: Tensor, start: Tensor, radius: float) -> Tensor:
    """`found` no further than `radius` from `start`: an attack's own rounding must not refute us."""
    if found.shape != start.shape:
        raise ShapeError(
            "robustness(attack)",
            f"must give points of the shape that it is given, {tuple(start.shape)}",
            tuple(found.shape),
            "Return a point for each point.",
        )
    moved = found.detach().to(start) - start
    # An attack that loses a point in NaN or infinity has not moved it.
    moved = torch.where(torch.isfinite(moved), moved, 0.0)
    lengths = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(1e-300)
    shrink = (radius * (1 - 1e-12) / lengths).clamp(max=1.0)
    return start + moved * shrink.reshape(-1, *[1] * (moved.dim() - 1))


@torch.no_grad()
def _outputs(network: nn.Module, points: Tensor) -> Tensor:
    return torch.cat([network(some) for some in points.split(CHUNK)]).cpu()


def _radius(value: float) -> float:
    remedy = "Pass radii such as 36/255."
    return check_number(value, NOT_NEGATIVE, argument="robustness(radii)", remedy=remedy)


def _points(tree: Tree, inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """The points, of shape (points, …) in float64, and their labels, (points,) in int64."""
    given = numbers(inputs, argument="robustness(inputs)")
    truth = numbers(labels, argument="robustness(labels)").cpu()
    x = real(given, tree, argument="robustness(inputs)")
    batch = tuple(truth.shape)
    if x.dim() <= len(batch) or tuple(x.shape[: len(batch)]) != batch or truth.numel() == 0:
        raise ShapeError(
            "robustness(inputs, labels)",
            "must be of shapes (points, features) and (points,), with at least one point",
            f"{tuple(given.shape)} and {batch}",
            "Pass a label for each input.",
        )
    if truth.is_floating_point():
        raise ArgumentError(
            "robustness(labels)", "must be whole numbers", truth.dtype, "Convert them with .long()."
        )
    source = tree.signature.source
    assert isinstance(source, Space)
    item, size = tuple(x.shape[len(batch) :]), source.size
    if item[-1] != size:
        # Images: as they are for a network that flattens them itself, and as vectors for any other.
        if item_dims(item, size) != len(item):
            raise misfit("robustness(inputs)", tuple(given.shape), size)
        item = item if flattens(tree) else (size,)
    return x.reshape(-1, *item), truth.reshape(-1).to(torch.int64)


def _check_outputs(outputs: Tensor, labels: Tensor) -> None:
    if outputs.dim() != 2:
        raise ShapeError(
            "robustness(net)",
            "must give outputs of shape (points, classes)",
            tuple(outputs.shape),
            "Put mm.Flatten() behind it.",
        )
    if not bool(torch.isfinite(outputs).all()):
        raise NonFiniteError(
            "the network's outputs", "must be finite", "NaN or infinity", "Look at its weights."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= outputs.shape[1]:
        raise ArgumentError(
            "robustness(labels)",
            f"must be whole numbers from 0 to {outputs.shape[1] - 1}",
            f"{lowest} to {highest}",
            "Pass the indices of the classes.",
        )


def _part(which: Tensor) -> float:
    return float(which.double().mean())

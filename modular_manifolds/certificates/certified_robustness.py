"""Certified robustness: the fraction of predictions that no small change of the input can alter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.certificates.attack import Attack
from modular_manifolds.certificates.bounds import bounds_of, endpoint_spaces
from modular_manifolds.certificates.examination import Examination, examine
from modular_manifolds.certificates.input_scale import InputScale, unscaled
from modular_manifolds.certificates.inputs import (
    as_float64,
    as_tensor,
    feature_mismatch,
    flattens,
    item_dims,
)
from modular_manifolds.certificates.margins import certified_radii, pair_bounds, rounding_of_outputs
from modular_manifolds.certificates.robustness_report import RobustnessReport, RobustnessRow
from modular_manifolds.composition.space import Space
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError, CertificateError, NonFiniteError, ShapeError
from modular_manifolds.linalg.snapshot import device_of
from modular_manifolds.nn.composed import Composed

RADII: Final = (36 / 255, 72 / 255, 108 / 255)
"""The usual l2 radii for certified accuracies on CIFAR-10, for pixels in [0, 1]."""
POINTS_PER_PASS: Final = 1024
"""The number of points in one forward pass."""


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

    K is √2 times the certified bound of the network from l2 to l2. If the last module is a Linear W after a map with
    bound B, `‖w_c − w_j‖₂ B` also holds, and the smaller is used. The network runs in float64; margins are lowered by a
    bound on its rounding, and the radius is rounded down. Ties and wrong predictions have radius 0. The certificate does
    not cover the network in float32, which computes a slightly different function.

    Args:
        net: a classifier whose outputs are the scores of the classes. The report uses a copy without hooks, in evaluation
            mode.
        inputs: the network's inputs, in any shape that it takes: vectors, or images for a network that flattens them.
        labels: integers of any dtype, one for each point: the shape of the inputs without the dimensions of one point.
        radii: l2 radii in the units of `scale`.
        scale: the scaling of the inputs; without it radii are in the network's own units.
        attack: for example `mm.ProjectedGradient()`. Each radius is attacked at the points that survived smaller radii.

    Raises:
        ArgumentError: a label or a radius is out of range, or a weight is complex.
        ShapeError: inputs, labels and network do not fit.
        NonFiniteError: inputs, outputs or a weight hold NaN or infinity.
        SpaceError: `mm.lipschitz` refuses the network.
        CertificateError: the attack changed a certified prediction, so a declared number is wrong.

    Source: Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training" (2018), proposition 1.
    """
    checked = tuple(sorted({_radius(each) for each in radii}))
    with examine(net, argument="robustness(net)") as examination:
        scale_in_use = unscaled() if scale is None else _detached(scale)
        return _report(examination, inputs, labels, checked, scale_in_use, attack)


def _report(
    examination: Examination,
    inputs: Any,
    labels: Any,
    checked: tuple[float, ...],
    scale_in_use: InputScale,
    attack: Attack | None,
) -> RobustnessReport:
    # Predictions and their bounds are those of evaluation mode.
    network, tree = examination.network, examination.tree
    endpoint_spaces(tree, "robustness(net)")
    points, truth = _points(tree, inputs, labels)
    points = points.to(device_of(network))
    bounds = bounds_of(tree, input_norm="l2", output_norm="l2")
    bound = math.inf if math.isnan(bounds.certified) else bounds.certified
    outputs = _outputs(network, points)
    _check_outputs(outputs, truth)
    correct = outputs.argmax(dim=1) == truth
    pairs, last_weight = pair_bounds(tree, bound, outputs.shape[1])
    longest = float(torch.linalg.vector_norm(points.flatten(1), dim=1).amax())
    error = rounding_of_outputs(tree, longest)
    own_radii = certified_radii(outputs, truth, pairs, error) * scale_in_use.shortest
    accuracies = _accuracies_under_attack(
        network, points, truth, correct, own_radii, checked, scale_in_use, attack
    )
    return RobustnessReport(
        clean=_fraction(correct),
        rows=tuple(
            RobustnessRow(radius, _fraction(own_radii > radius), survivors)
            for radius, survivors in zip(checked, accuracies, strict=True)
        ),
        radii=tuple(own_radii.tolist()),
        lipschitz=bound,
        shortest=scale_in_use.shortest,
        unit=scale_in_use.unit,
        pairs=last_weight,
        attack=None if attack is None else getattr(attack, "__name__", str(attack)),
        unbounded=tuple(
            f"{each.leaf.path or '(whole)'} ({each.leaf.label})"
            for each in bounds.certified_propagation.passages
            if not math.isfinite(each.slope)
        ),
    )


def _detached(scale: InputScale) -> InputScale:
    """The same scale with detached copies of its tensors, which may be inference tensors or have a graph."""
    mean, std = (each.detach().clone() for each in (scale.mean, scale.std))
    return replace(scale, mean=mean, std=std)


class _Scaled(nn.Module):
    """The network as a function of the data in the unit of radii."""

    def __init__(self, network: nn.Module, scale: InputScale) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, u: Tensor) -> Tensor:
        return self.network(self.scale.seen(u))


def _accuracies_under_attack(
    network: nn.Module,
    points: Tensor,
    labels: Tensor,
    correct: Tensor,
    own_radii: Tensor,
    radii: Sequence[float],
    scale: InputScale,
    attack: Attack | None,
) -> list[float | None]:
    """The fraction of points that are still correct after the attack at each radius."""
    if attack is None:
        return [None] * len(radii)
    model = _Scaled(network, scale).eval()
    start = scale.undone(points)
    unbroken = correct.clone()
    accuracies: list[float | None] = []
    for radius in radii:
        for chunk in unbroken.nonzero().flatten().split(POINTS_PER_PASS) if radius > 0 else ():
            indices = chunk.to(points.device)
            attacked = attack(model, start[indices], labels[chunk].to(points.device), radius)
            neighbours = _project_to_ball(attacked, start[indices], radius)
            with torch.no_grad():
                unchanged = model(neighbours).argmax(dim=1).cpu() == labels[chunk]
            refuted = chunk[~unchanged & (own_radii[chunk] > radius)]
            if len(refuted):
                raise CertificateError(
                    f"point {int(refuted[0])}",
                    f"must keep its class within the l2 radius {float(own_radii[refuted[0]]):.6g} in {scale.unit}",
                    f"another class within {radius:.6g}",
                    "A declared sensitivity is wrong: hold the network's own bonds to "
                    "mm.testing.check_module. If it has none, please report this.",
                )
            unbroken[chunk] = unchanged
        accuracies.append(_fraction(unbroken))
    return accuracies


def _project_to_ball(attacked: Tensor, start: Tensor, radius: float) -> Tensor:
    """`attacked`, moved to within `radius` of `start`, so that rounding in the attack cannot refute the certificate."""
    if attacked.shape != start.shape:
        raise ShapeError(
            "robustness(attack)",
            f"must return points of the shape of its input, {tuple(start.shape)}",
            tuple(attacked.shape),
            "Return one point for each point.",
        )
    moved = attacked.detach().to(start) - start
    # Points with NaN or infinity count as not moved.
    moved = torch.where(torch.isfinite(moved), moved, 0.0)
    lengths = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(1e-300)
    shrink = (radius * (1 - 1e-12) / lengths).clamp(max=1.0)
    return start + moved * shrink.reshape(-1, *[1] * (moved.dim() - 1))


@torch.no_grad()
def _outputs(network: nn.Module, points: Tensor) -> Tensor:
    return torch.cat([network(chunk) for chunk in points.split(POINTS_PER_PASS)]).cpu()


def _radius(value: float) -> float:
    remedy = "Pass radii such as 36/255."
    return check_number(value, NOT_NEGATIVE, argument="robustness(radii)", remedy=remedy)


def _points(tree: Tree, inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """The points, of shape (points, …) in float64, and their labels, (points,) in int64."""
    tensor = as_tensor(inputs, argument="robustness(inputs)")
    truth = as_tensor(labels, argument="robustness(labels)").cpu()
    x = as_float64(tensor, tree, argument="robustness(inputs)")
    batch = tuple(truth.shape)
    if x.dim() <= len(batch) or tuple(x.shape[: len(batch)]) != batch or truth.numel() == 0:
        raise ShapeError(
            "robustness(inputs, labels)",
            "must be of shapes (points, features) and (points,), with at least one point",
            f"{tuple(tensor.shape)} and {batch}",
            "Pass a label for each input.",
        )
    if truth.is_floating_point():
        raise ArgumentError(
            "robustness(labels)", "must be whole numbers", truth.dtype, "Convert them with .long()."
        )
    source = tree.signature.source
    assert isinstance(source, Space)
    item_shape, size = tuple(x.shape[len(batch) :]), source.size
    if item_shape[-1] != size:
        # Images stay images only for a network that flattens them itself.
        if item_dims(item_shape, size) != len(item_shape):
            raise feature_mismatch("robustness(inputs)", tuple(tensor.shape), size)
        item_shape = item_shape if flattens(tree) else (size,)
    return x.reshape(-1, *item_shape), truth.reshape(-1).to(torch.int64)


def _check_outputs(outputs: Tensor, labels: Tensor) -> None:
    if outputs.dim() != 2:
        raise ShapeError(
            "robustness(net)",
            "must give outputs of shape (points, classes)",
            tuple(outputs.shape),
            "Put mm.Flatten() after it.",
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


def _fraction(which: Tensor) -> float:
    return float(which.double().mean())

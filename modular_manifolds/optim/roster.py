"""The weights that a step moves, in buckets: made once, and again only if something changes that the host knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.bucket import Bucket, buckets_of
from modular_manifolds.optim.fallback import Plain, plain_in, prepare_plain_
from modular_manifolds.optim.gradients import check_gradient
from modular_manifolds.optim.groups import is_other, weights_in
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.settings import check_geometry
from modular_manifolds.optim.state import prepare_
from modular_manifolds.optim.weight import Weight, dual_shape
from modular_manifolds.solvers.base import Solver

Group = Mapping[str, Any]


class Roster:
    """The buckets of the weights that are stepped together, the weights that AdamW steps, and one report a device.

    Args:
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        first_rate: the largest learning rate that is known beforehand.
    """

    def __init__(
        self, geometries: Mapping[str, Geometry], *, solver: str | Solver, first_rate: float
    ) -> None:
        self._first_rate = first_rate
        self.buckets: list[Bucket] = []
        self.plain: list[Plain] = []
        self.reports: list[Report] = []
        self.unread = False
        """Whether a step has written reports since they were made."""
        self.was_captured = False
        """Whether a graph holds the addresses of the buckets, so that reports may change without a step."""
        self._geometries = geometries
        self._solver: str | Solver = solver
        self._everyone: list[Weight] = []
        self._bucket_of: list[Bucket | None] = []
        self._all_plain: list[Plain] = []
        self._declared: list[tuple[Any, Any, Any]] = []
        self._dual_shapes: dict[str, tuple[int, ...] | None] = {}

    def holds(self, groups: Sequence[Group]) -> bool:
        """Whether the buckets are those of the weights that have a gradient and a share; shares are brought up to date.

        Raises:
            ArgumentError: a weight is complex, or a gradient sparse.
        """
        count, known = 0, len(self._everyone)
        alike = len(self._declared) == len(groups) and self._holds_plain(groups)
        for index, group in enumerate(groups):
            alike = alike and _geometry(group) == self._declared[index]
            if is_other(group):
                continue
            for path, share, parameter in zip(
                group["param_names"], group["shares"], group["params"], strict=True
            ):
                has_gradient = parameter.grad is not None
                several = isinstance(share, list | tuple)
                if has_gradient and (any(share) if several else share != 0):
                    check_gradient(path, parameter)
                for own in share if several else (share,):
                    if alike and count < known:
                        member, bucket = self._everyone[count], self._bucket_of[count]
                        alike = (
                            member.parameter is parameter
                            and member.group == index
                            and member.path == path
                            and (has_gradient and own != 0) == (bucket is not None)
                        )
                        if alike and bucket is not None:
                            alike = (
                                bucket.dtype is parameter.dtype
                                and bucket.device == parameter.device
                            )
                    count += 1
        if not alike or count != known:
            return False
        for bucket in self.buckets:
            bucket.follow_shares_(groups[bucket.group])
        return True

    def _holds_plain(self, groups: Sequence[Group]) -> bool:
        moving = iter(self.plain)
        for index, group in enumerate(groups):
            if not is_other(group):
                continue
            for path, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                check_gradient(path, parameter)
                held = next(moving, None)
                if held is None or held.parameter is not parameter or held.group != index:
                    return False
        return next(moving, None) is None

    def gather(self, groups: Sequence[Group], *, only_with_gradient: bool = True) -> None:
        """Make the buckets anew.

        Args:
            groups: the parameter groups.
            only_with_gradient: leave out weights without a gradient. Before the first backward none has one, and most steps
                step every weight.

        Raises:
            ArgumentError: a group's geometry is not that of its weights.
        """
        for index, group in enumerate(groups):
            check_geometry(index, group, self._geometries)
        self._everyone = list(weights_in(groups, self._geometries))
        members = [
            each
            for each in self._everyone
            if each.share_in(groups[each.group]) > 0
            and each.parameter.is_floating_point()
            and (each.parameter.grad is not None or not only_with_gradient)
        ]
        self.buckets = buckets_of(members, groups, solver=self._solver, first_rate=self._first_rate)
        places = {each.index: bucket for bucket in self.buckets for each in bucket.weights}
        self._bucket_of = [places.get(each.index) for each in self._everyone]
        self._declared = [_geometry(group) for group in groups]
        self._all_plain = plain_in(groups)
        self.plain = [
            each
            for each in self._all_plain
            if each.parameter.grad is not None or not only_with_gradient
        ]
        devices = dict.fromkeys(
            [bucket.device for bucket in self.buckets]
            + [each.parameter.device for each in self.plain]
        )
        self.reports = [
            Report(
                device,
                [bucket for bucket in self.buckets if bucket.device == device],
                [each for each in self.plain if each.parameter.device == device],
            )
            for device in devices
        ]
        self.unread = False

    def allow_rate(self, lr: float) -> None:
        """Make plans for learning rates of twice `lr`, if they are tensors."""
        self._first_rate = lr
        for bucket in self.buckets:
            bucket.first_rate = lr

    def prepare_(self, groups: Sequence[Group], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Make the state of every weight that was gathered, also of those without a gradient: checkpoints of all ranks agree."""
        if not self._declared:
            self.gather(groups, only_with_gradient=False)
        for each in self._everyone:
            if not each.parameter.is_floating_point():
                continue
            if each.name not in self._dual_shapes:
                self._dual_shapes[each.name] = dual_shape(each, self._solver)
            group = groups[each.group]
            prepare_(
                state[each.parameter],
                each,
                momentum=group["momentum"],
                damped=group["noise_damping"],
                dual_shape=self._dual_shapes[each.name],
            )
        for each in self._all_plain:
            prepare_plain_(state[each.parameter], each.parameter)


def _geometry(group: Group) -> tuple[Any, Any, Any]:
    return group.get("manifold"), group.get("norm"), group.get("pieces")

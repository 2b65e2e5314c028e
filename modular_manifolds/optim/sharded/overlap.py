"""Overlap: messages leave for the owners while the backward pass goes on."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.optim.sharded.crew import Crew
from modular_manifolds.optim.sharded.decision import decided_on_host
from modular_manifolds.optim.sharded.gradients import shard_of_gradient
from modular_manifolds.optim.sharded.inputs import early_inputs
from modular_manifolds.optim.sharded.messages import Message, signature_of
from modular_manifolds.optim.sharded.state import shards_of
from modular_manifolds.optim.sharded.transport import Sent

Group = Mapping[str, Any]
States = Mapping[Tensor, Mapping[str, Any]]
Values = Mapping[tuple[str, str], Tensor]

ROUNDS: Final = 2**20
"""Rounds are numbered modulo this, so that float32 holds the numbers of the agreement."""


class Overlap:
    """Sends each message once its gradients are complete and all earlier messages of its crew have left.

    A round is one sending of all messages, in the same order on every process. Each step ends a round: it sends the messages
    that have not left. So the number, order and sizes of the collectives never depend on data, nor on the process
    whose backward pass is faster. They have process groups of their own, because their order among other collectives may.

    The step packs each message that has left once more, and compares it with the one that was sent, bit for bit. So
    whatever has changed in between is noticed: gradients, weights, momenta or settings.

    The hooks on parameters hold this object weakly, and are removed with it.

    Args:
        passes: the number of backward passes of a step. A gradient is complete when so many have added to it.
        group_of: the process group in which the messages of a crew travel.
    """

    def __init__(self, passes: int, group_of: Callable[[Crew], Any]) -> None:
        self._passes, self._group_of = passes, group_of
        self._messages: list[Message] = []
        self._groups: Sequence[Group] = []
        self._state: States = {}
        self._hooked: dict[str, Any] = {}
        self._seen: dict[str, int] = {}
        """For each parameter, the number of backward passes of this round that have reached it."""
        self._written: dict[str, Any] = {}
        """On a device, for each parameter the event after which its gradient can be read."""
        self._sent: dict[int, list[Sent]] = {}
        self._round = 0
        self._sent_early: int | None = None
        weakref.finalize(self, _remove, self._hooked).atexit = False

    @property
    def counts(self) -> tuple[int, int | None]:
        """The number of messages, and of those that had left before the last step; None before the first step."""
        return len(self._messages), self._sent_early

    def follow(self, messages: list[Message], groups: Sequence[Group], state: States) -> None:
        """Take the groups and states, and new messages if settings or parameters have changed.

        Before new messages every process ends its round with the former ones.
        """
        self._groups, self._state = groups, state
        if messages is not self._messages:
            self._end_unused_round()
            self._messages = messages
            for message in messages:
                self._group_of(message.crew)
            _remove(self._hooked)
        self._add_hooks()

    def _add_hooks(self) -> None:
        """Hook the parameters that are trained and have no hook."""
        for message in self._messages:
            for member in message.members:
                parameter = member.parameter
                if member.name not in self._hooked and parameter.requires_grad:
                    hook = _hook(weakref.ref(self), member.name)
                    self._hooked[member.name] = parameter.register_post_accumulate_grad_hook(hook)

    @torch.no_grad()
    def _arrive(self, name: str, parameter: Tensor) -> None:
        """A backward pass has added to a gradient: send the messages that are complete."""
        self._seen[name] = self._seen.get(name, 0) + 1
        self._written[name] = _event(parameter)
        waiting: set[tuple[int, ...]] = set()
        for number, message in enumerate(self._messages):
            crew = message.crew.ranks
            if number in self._sent or crew in waiting:
                continue
            if not self._is_complete(message):
                waiting.add(crew)
                continue
            for member in message.members:
                _wait_for(self._written.get(member.name))
            gradients = {
                each.name: shard_of_gradient(each.name, each.parameter) for each in message.members
            }
            self._send(number, self._values(message, gradients))

    def _is_complete(self, message: Message) -> bool:
        """Whether the gradients are there, need no redistribution, and the message is still laid out for the settings."""
        for each in message.members:
            parameter = each.parameter
            if each.group >= len(self._groups):
                return False  # The step will find that the group was removed.
            if not parameter.requires_grad and parameter.grad is None:
                continue
            if self._seen.get(each.name, 0) < self._passes or parameter.grad is None:
                return False
            placements = getattr(parameter.grad, "placements", None)
            if placements is None or tuple(placements) != tuple(parameter.placements):
                return False
        return signature_of(message.members, self._groups, self._state) == message.signature

    def _values(self, message: Message, gradients: Mapping[str, Tensor | None]) -> Values:
        """The fields of a message."""
        shards = [
            {**shards_of(self._state[each.parameter]), "": each.parameter.to_local()}
            for each in message.members
        ]
        on_device = not decided_on_host([gradients[each.name] for each in message.members])
        inputs = early_inputs(message.members, self._groups, gradients, shards, on_device=on_device)
        return message.values(inputs, shards)

    def _send(self, number: int, values: Values | None) -> None:
        """Send one message; without values, one of the same size that nobody reads."""
        message = self._messages[number]
        group = self._group_of(message.crew)
        self._sent[number] = [
            each.send(each.pack_zeros() if values is None else each.pack(values), group)
            for each in message.transports
        ]

    def complete(
        self, gradients: Mapping[str, Tensor | None], dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Send the messages that have not left; return two numbers for the agreement of all processes.

        Their maxima add up to zero if all processes are in the same round, and none has found a change in a message
        that had left: they are the number of the round, raised by a change, and its negative.

        Args:
            gradients: the shard of each gradient, by name.
            dtype: the dtype of the numbers.
            device: their device.
        """
        self._sent_early = len(self._sent)
        above = torch.full((1,), float(self._round), dtype=dtype, device=device)
        for number, message in enumerate(self._messages):
            values = self._values(message, gradients)
            if number not in self._sent:
                self._send(number, values)
                continue
            for transport, sent in zip(message.transports, self._sent[number], strict=True):
                changed = transport.pack(values).view(torch.int32) != sent.numbers().view(
                    torch.int32
                )
                above += 2 * ROUNDS * changed.any()
        return above, torch.full_like(above, -float(self._round))

    def receive(self, wholes: Values) -> None:
        """Wait for the messages, and write them into the whole tensors of this process's own fields."""
        for number, message in enumerate(self._messages):
            for transport, sent in zip(message.transports, self._sent[number], strict=True):
                transport.receive(sent, wholes)

    def end_round(self) -> None:
        """Forget the messages of this round, if all have left. After an error before that, the round goes on."""
        if len(self._sent) < len(self._messages):
            return
        self._seen, self._written, self._sent = {}, {}, {}
        self._round = (self._round + 1) % ROUNDS

    def give_up(self) -> None:
        """Give up gradients of which some may be on their way: the round ends, on every process that has seen any."""
        if self._seen:
            self._end_unused_round()

    def _end_unused_round(self) -> None:
        if self._messages:
            for number in range(len(self._messages)):
                if number not in self._sent:
                    self._send(number, None)
            self.end_round()


def _hook(overlap: weakref.ref[Overlap], name: str) -> Callable[[Tensor], None]:
    def arrive(parameter: Tensor) -> None:
        this = overlap()
        if this is not None:
            this._arrive(name, parameter)  # pyright: ignore[reportPrivateUsage]

    return arrive


def _event(tensor: Tensor) -> Any:
    """An event after all that the present stream has to do; None on the host."""
    return None if tensor.is_cpu else torch.accelerator.current_stream(tensor.device).record_event()


def _wait_for(event: Any) -> None:
    """Let the present stream wait."""
    if event is not None:
        torch.accelerator.current_stream(event.device).wait_event(event)


def _remove(hooked: dict[str, Any]) -> None:
    for each in hooked.values():
        each.remove()
    hooked.clear()

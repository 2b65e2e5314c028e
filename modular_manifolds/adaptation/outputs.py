"""One forward pass of a user's model without side effects, and the tensor that counts as its outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError

OUTPUT_NAMES: Final = ("logits", "last_hidden_state")
"""The names of the main output of models with several outputs, the preferred name first."""

NORMS: Final = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""The norms that take statistics of the batch. A synchronised norm would wait for processes that may not measure."""
ONE_VALUE: Final = "Expected more than 1 "
"""The beginning of torch's error about statistics of one value."""

Batch = Any
"""The arguments of the model: a tensor, positional arguments in a tuple or list, or keyword arguments in a mapping."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model on one batch, with their graph, and the loss if there is one."""

    tensor: Tensor
    loss: Tensor | None


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Keep `model` in eval mode with gradients on; afterwards restore modes, buffers and the random state.

    Batch and instance norms that are in training mode stay in it, so that they take the statistics of the batch: the running
    ones of a fresh model belong to no batch, and the model that trains is another function.

    Modes are set as attributes, because an overridden `train` may have side effects, such as merging weights. Compiled
    parts run eagerly, because a compiled backward pass may not run twice.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [
        _SavedBuffer(module, name, tensor, tensor.detach().clone(), _version(tensor))
        for module in modules
        for name, tensor in module.named_buffers(recurse=False)
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_preserved_random_state(model))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if any(isinstance(module, nn.RNNBase) for module in modules):
            # cuDNN has no backward pass for recurrent networks in eval mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            for module in modules:
                module.training = module.training and isinstance(module, NORMS)
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for buffer in buffers:
                buffer.restore()


def outputs_of(
    model: nn.Module, batch: Batch, loss: Callable[[Any], Tensor] | None = None
) -> Outputs:
    """Call `model` on `batch`; return its outputs and its loss.

    The outputs are `logits` if the result has them, else `last_hidden_state`, else the first floating-point tensor with
    dimensions and a gradient. The loss is `loss(result)`, or the result's own `loss`.

    Raises:
        ArgumentError: no tensor can be the outputs, the outputs are not finite, or the loss is not one number with a
            gradient.
    """
    try:
        result = _call(model, batch)
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise ArgumentError(
            "batch",
            "must have several values for each channel of a batch norm in training mode",
            "one value",
            "Pass more examples, or call model.eval() to measure with running statistics.",
        ) from error
    tensor = _main_tensor(result)
    if not bool(torch.isfinite(tensor.detach()).all()):
        raise ArgumentError(
            "model(batch)",
            "must have finite outputs",
            "NaN or infinity",
            "Check the weights and the batch.",
        )
    return Outputs(tensor, _loss(result, loss))


def _call(model: nn.Module, batch: Batch) -> Any:
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    raise ArgumentError(
        "batch",
        "must be a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments",
        type(batch).__name__,
        "Pass the arguments of the model.",
    )


def _main_tensor(result: Any) -> Tensor:
    for name in OUTPUT_NAMES:
        value = _member(result, name)
        if _can_be_output(value):
            return value
    for value in _tensors(result):
        if _can_be_output(value):
            return value
    raise ArgumentError(
        "model(batch)",
        "must return a floating-point tensor with dimensions that depends on a trainable weight",
        _describe(result),
        "Return the outputs of the model, not only its loss, and keep its weights trainable.",
    )


def _loss(result: Any, loss: Callable[[Any], Tensor] | None) -> Tensor | None:
    value = _member(result, "loss") if loss is None else loss(result)
    if loss is None and not isinstance(value, Tensor):
        return None
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ArgumentError(
            "loss(outputs)" if loss is not None else "model(batch).loss",
            "must be a tensor of one number with a gradient",
            _describe(value),
            "Average the loss over the batch, and do not detach it.",
        )
    return value.reshape(())


def _member(result: Any, name: str) -> Any:
    """The entry of a mapping, or the attribute of an object, with this name; None if there is none."""
    if isinstance(result, Tensor):
        return None
    return result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)


def _can_be_output(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.requires_grad
        and value.dim() > 0
    )


def _tensors(result: Any) -> Iterator[Tensor]:
    """The tensors inside tuples, lists, mappings and objects with attributes, in their order."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for each in result.values():
            yield from _tensors(each)
    elif isinstance(result, tuple | list):
        for each in result:
            yield from _tensors(each)
    elif hasattr(result, "__dict__"):
        # One level only, because an object may contain itself.
        for each in vars(result).values():
            if isinstance(each, Tensor | tuple | list | Mapping):
                yield from _tensors(each)


def _describe(result: Any) -> str:
    if isinstance(result, Tensor):
        kind = "" if result.requires_grad else " without a gradient"
        return f"a {result.dtype} tensor of shape {tuple(result.shape)}{kind}"
    value = [_describe(each) for each in _tensors(result)]
    inside = f" with {'; '.join(value[:4])}" if value else ""
    return f"{type(result).__name__}{inside}"


@contextmanager
def _preserved_random_state(model: nn.Module) -> Iterator[None]:
    devices = {each.device for each in (*model.parameters(), *model.buffers())}
    devices = {each for each in devices if each.type not in ("cpu", "meta")}
    kinds = sorted({each.type for each in devices})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind in kinds:
            indices = sorted(each.index or 0 for each in devices if each.type == kind)
            stack.enter_context(torch.random.fork_rng(devices=indices, device_type=kind))
        yield


@dataclass(frozen=True)
class _SavedBuffer:
    """A buffer of a module, with its values and version, to restore it."""

    module: nn.Module
    name: str
    tensor: Tensor
    values: Tensor
    version: int

    def restore(self) -> None:
        setattr(self.module, self.name, self.tensor)
        # The kernels of batch norms write without a new version.
        if _version(self.tensor) != self.version or isinstance(self.module, NORMS):
            with torch.no_grad():
                self.tensor.copy_(self.values)


def _version(tensor: Tensor) -> int:
    # Inference tensors have no version, and nothing can write to them here.
    return 0 if tensor.is_inference() else tensor._version

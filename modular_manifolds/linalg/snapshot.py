"""An independent copy of a network for evaluation, and a context in which torch's global settings have no effect."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.surroundings import full_precision

M = TypeVar("M", bound=nn.Module)

WEIGHT_HOOKS: Final = (BasePruningMethod, SpectralNorm, WeightNorm)
"""torch's hooks that recompute a weight before every forward pass."""
BLANK_ATTRIBUTES: Final = vars(nn.Module())
"""The attributes of a module that has no children, weights or hooks."""


@contextmanager
def plain_surroundings(device: torch.device) -> Iterator[None]:
    """Set torch's global state to fixed values, and restore the caller's afterwards.

    Inside, gradients are recorded, and inference mode, autocast, reduced precision and anomaly mode are off. The default
    dtype is float32. Attention is computed by its formula, because torch's fused attention has no second derivative. If
    the default device is not the CPU, new tensors are created on the network's device. The global generator's state is
    restored too.

    Args:
        device: the network's device.

    Raises:
        ArgumentError: the call is inside a transform of `torch.func`, such as `vmap`.
    """
    _refuse_transforms()
    default = torch.get_default_device()
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device.type))
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if default.type not in ("cpu", device.type):
            stack.enter_context(device)
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        fork = torch.random.fork_rng
        on_cpu = device.type == "cpu"
        stack.enter_context(fork([]) if on_cpu else fork([device], device_type=device.type))
        yield


def device_of(net: nn.Module) -> torch.device:
    """The device of the first weight, else of the first buffer, else the CPU."""
    tensors = (each.device for part in (net.parameters(), net.buffers()) for each in part)
    return next(tensors, torch.device("cpu"))


def snapshot(net: M) -> M:
    """Copy a network for evaluation: plain weights, no gradients, no hooks.

    The copy has the values that a forward pass in evaluation mode uses. A weight that `torch.nn.utils` computes, by
    a parametrization, pruning, weight normalisation or spectral normalisation, becomes a plain weight with its current
    value. Hooks are neither copied nor called. Tensors that modules store, such as their last output, are copied by
    value. Any other object that cannot be copied, such as a lock, is shared.

    Raises:
        ArgumentError: a parameter has no values yet, is complex, not of a floating dtype or not dense.
        NonFiniteError: a parameter holds NaN or infinity.
    """
    check_values(net)
    memo: dict[int, Any] = {}
    pairs = [(module, _blank(module)) for module in net.modules()]
    for module, blank in pairs:
        memo[id(module)] = blank
    with torch.no_grad(), _TensorsByValue():
        for module, blank in pairs:
            vars(blank).update(_attributes(module, memo))
    copied = cast("M", memo[id(net)])
    with torch.no_grad():
        for module, blank in pairs:
            _make_plain(module, blank)
    for path in _weight_paths(copied):
        _make_parameter(copied, path)
    check_values(copied)
    return copied.requires_grad_(False)


def check_values(net: nn.Module) -> None:
    """Refuse parameters that a report cannot be computed for; the message names the first one.

    Raises:
        ArgumentError: a parameter has no values yet, is complex, not of a floating dtype or not dense.
        NonFiniteError: a parameter holds NaN or infinity.
    """
    for name, parameter in net.named_parameters():
        argument = f"the weight '{name}'"
        if parameter.is_meta or is_lazy(parameter):
            raise ArgumentError(
                argument,
                "must have values",
                "a parameter on the meta device" if parameter.is_meta else "none yet",
                "Create the network on a device that holds data, or load its weights first.",
            )
        if not parameter.is_floating_point():
            raise ArgumentError(
                argument,
                "must be of a real floating dtype",
                parameter.dtype,
                "Take real and imaginary part as two weights."
                if parameter.is_complex()
                else "Convert the network, for example with net.float().",
            )
        if parameter.layout != torch.strided:
            raise ArgumentError(
                argument, "must be dense", parameter.layout, "Convert it with .to_dense()."
            )
        finite = torch.isfinite(parameter.detach())
        if not bool(finite.all()):
            raise NonFiniteError(
                argument,
                "must be finite",
                f"{int((~finite).sum())} of {finite.numel()} entries NaN or infinite",
                "Load an earlier checkpoint, or look for the step that made them.",
            )


class _TensorsByValue(TorchFunctionMode):
    """A mode in which `copy.deepcopy` copies a tensor's value, also if it has a history or is an inference tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), tensor.detach().clone())


def _blank(module: nn.Module) -> nn.Module:
    """A module of the same class (before parametrization) without attributes."""
    kind: Any = type(module)
    if parametrize.is_parametrized(module):
        kind = parametrize.type_before_parametrizations(module)
    return cast("nn.Module", kind.__new__(kind))


def _attributes(module: nn.Module, memo: dict[int, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name == "_parameters":
            attributes[name] = {key: _parameter(each, memo) for key, each in value.items()}
        elif (
            name in ("_modules", "_buffers", "_non_persistent_buffers_set")
            or name not in BLANK_ATTRIBUTES
        ):
            attributes[name] = _copied(value, memo)
        else:
            # Hooks.
            attributes[name] = copy.copy(BLANK_ATTRIBUTES[name])
    # With the compiled forward pass the copy would be compiled too.
    attributes.pop("_compiled_call_impl", None)
    attributes["training"] = False
    return attributes


def _parameter(parameter: nn.Parameter | None, memo: dict[int, Any]) -> nn.Parameter | None:
    if parameter is None:
        return None
    if id(parameter) not in memo:
        memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return memo[id(parameter)]


def _copied(value: object, memo: dict[int, Any]) -> object:
    try:
        return copy.deepcopy(value, memo)
    except (TypeError, NotImplementedError):
        # Python and torch raise these for objects that cannot be copied.
        return value


def _make_plain(module: nn.Module, copied: nn.Module) -> None:
    """Replace weights that torch computes at every forward pass by plain weights."""
    if parametrize.is_parametrized(module):
        computed = vars(copied)["_modules"].pop("parametrizations")
        for name, each in computed.named_children():
            copied.register_parameter(name, nn.Parameter(each(), requires_grad=False))
    for hook in vars(module)["_forward_pre_hooks"].values():
        if isinstance(hook, WEIGHT_HOOKS):
            hook.remove(copied)


def _weight_paths(net: nn.Module) -> list[str]:
    geometries = getattr(net, "geometries", None)
    return [] if geometries is None else [path for path, _ in geometries()]


def _make_parameter(net: nn.Module, path: str) -> None:
    """Turn a weight that was replaced by a plain tensor into a parameter again."""
    owner, _, name = path.rpartition(".")
    module = net.get_submodule(owner)
    attributes = vars(module)
    if isinstance(attributes["_parameters"].get(name), nn.Parameter):
        return
    value = getattr(module, name, None)
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"the weight '{path}'",
            "must be a tensor",
            "nothing" if value is None else type(value).__name__,
            "Put the weight back, or build the network anew.",
        )
    for place in (attributes, attributes["_buffers"], attributes["_parameters"]):
        place.pop(name, None)
    module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


def _refuse_transforms() -> None:
    stack = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    if stack is not None:
        raise ArgumentError(
            "a report",
            "must be computed outside torch.func",
            "a call inside vmap, grad, jvp or another transform",
            "Call it before the transform: it needs numbers, not traced values.",
        )

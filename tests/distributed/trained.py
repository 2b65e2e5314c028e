"""Networks that processes train together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from forked import long_tests_run
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2Model

import modular_manifolds as mm
from modular_manifolds.optim import on_device, settings, whole
from modular_manifolds.optim.sharded import decision

ROWS = 64


def steps() -> int:
    """The number of steps that networks train."""
    return 20 if long_tests_run() else 8


class Transformer(nn.Module):
    """GPT-2 of transformers, small, with a head."""

    def __init__(self) -> None:
        super().__init__()
        sizes = GPT2Config(vocab_size=24, n_positions=12, n_embd=16, n_head=2, n_layer=2)
        sizes.resid_pdrop = sizes.embd_pdrop = sizes.attn_pdrop = 0.0
        self.body = GPT2Model(sizes)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).last_hidden_state)


def _tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(12, (2, ROWS, 12), generator=generator)
    return x, y


def _vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(5, (ROWS,), generator=generator)
    return torch.randn(ROWS, 12, generator=generator), y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mm.models.MLP(12, 5, hidden=(24, 24, 24)),
    "gpt": lambda: mm.models.GPT(12, width=16, depth=2, heads=2),
    "gpt2": Transformer,
}


def batch(name: str) -> tuple[Tensor, Tensor]:
    """The rows of this process: a part of a batch that is the same in every world."""
    x, y = _vectors() if name == "mlp" else _tokens()
    count, rank = ROWS // dist.get_world_size(), dist.get_rank()
    return x.split(count)[rank], y.split(count)[rank]


def model_and_optimizer(
    name: str, lr: float = 0.02, **options: Any
) -> tuple[nn.Module, mm.SteepestDescent]:
    """A model inside DistributedDataParallel, if there are several processes, and its optimiser."""
    torch.manual_seed(0)
    model = MODELS[name]()
    plan = mm.adapt(model, progress=False) if name == "gpt2" else None
    wrapped = wrapped_in_ddp(model)
    plan = None if plan is None else mm.adapt(wrapped, start="keep", progress=False)
    opt = mm.SteepestDescent(
        wrapped if plan is None else plan, lr, **{"momentum": 0.9, "nesterov": True, **options}
    )
    return wrapped, opt


def backward(name: str, wrapped: nn.Module) -> None:
    loss_backward(wrapped, *batch(name))


def backward_of(name: str, model: nn.Module) -> None:
    """The gradients of the whole batch."""
    loss_backward(model, *(_vectors() if name == "mlp" else _tokens()))


def loss_backward(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    found = model(x)
    nn.functional.cross_entropy(found.reshape(-1, found.shape[-1]), y.reshape(-1)).backward()


def train(name: str, wrapped: nn.Module, opt: mm.SteepestDescent, steps: int) -> None:
    for _ in range(steps):
        backward(name, wrapped)
        opt.step()


@contextmanager
def way_of(name: str) -> Iterator[None]:
    """While inside, steps go the way of the host, or that of an accelerator, which reads no number."""
    on = [whole, decision, on_device, settings]
    modules: list[Any] = on if name == "device" else []
    known = [(each, each.readable) for each in modules]
    try:
        for module, _ in known:
            module.readable = lambda _: False
        yield
    finally:
        for module, readable in known:
            module.readable = readable


def give_gradients(net: nn.Module, seed: int, *, resting: Sequence[int] = ()) -> None:
    """The same random gradients in every process; zero for these weights."""
    generator = torch.Generator().manual_seed(seed)
    for number, each in enumerate(net.parameters()):
        gradient = torch.randn(each.shape, generator=generator).to(each.dtype)
        each.grad = torch.zeros_like(gradient) if number in resting else gradient


def wrapped_in_ddp(net: nn.Module) -> Any:
    """The network in DistributedDataParallel, or as it is if there is one process."""
    return DistributedDataParallel(net) if dist.get_world_size() > 1 else net


def weights_of(wrapped: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): each.detach().clone()
        for name, each in wrapped.named_parameters()
    }


def state_of(opt: mm.SteepestDescent) -> list[Tensor]:
    held = opt.state_dict()["state"]
    return [value.clone() for key in sorted(held) for _, value in sorted(held[key].items())]

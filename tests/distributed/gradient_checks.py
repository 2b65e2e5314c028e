"""Checks of gradients that are placed in another way than their parameters, and of torch's own tensor parallelism."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from sharded_rules import HOW, everything, give_gradients, is_sharded, messages, perceptron
from sharding import full_weights, world_mesh
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from trained import loss_backward, way_of
from transformers import LlamaConfig, LlamaForCausalLM

import modular_manifolds as mm

SHARES = (0.25, 0.75)
"""Both processes together have the whole gradient."""


def partial(gradient: Tensor, placement: Partial | None = None) -> DTensor:
    """A gradient of which each process holds a share."""
    share = SHARES[dist.get_rank()] * gradient
    return DTensor.from_local(share, world_mesh(2), [placement or Partial()], run_check=False)


def placed(gradient: Tensor, placement: Any) -> DTensor:
    return distribute_tensor(gradient, world_mesh(2), [placement], src_data_rank=None)


PLACED: tuple[Callable[[Tensor], Tensor], ...] = (
    partial,
    lambda gradient: placed(gradient, Replicate()),
    lambda gradient: placed(gradient, Shard(1)),
    lambda gradient: partial(2 * gradient, Partial("avg")),
)
"""The gradients of the four weights of the perceptron, which are split by rows."""


def place_gradients(net: nn.Module) -> None:
    """Place the whole gradients of this process anew."""
    for each, place in zip(net.parameters(), PLACED, strict=True):
        assert isinstance(each.grad, DTensor)
        each.grad = place(each.grad.full_tensor())


def check_placed() -> Any:
    """Gradients in other placements than their parameters, on both ways."""
    found: dict[str, Any] = {}
    for way in ("host", "device"):
        net, opt = perceptron()
        with way_of(way):
            for step in range(4):
                give_gradients(net, step)
                if is_sharded():
                    place_gradients(net)
                opt.step()
        found[way] = full_weights(net)
    return found


def check_placed_nonfinite() -> Any:
    """Shares of one gradient that are NaN on one process, or infinite with both signs."""
    found: dict[str, Any] = {}
    for way in ("host", "device"):
        for case, values in (("NaN", (1.0, math.nan)), ("infinity", (math.inf, -math.inf))):
            net, opt = perceptron()
            with way_of(way):
                give_gradients(net, 0)
                opt.step()
                before = everything(net, opt)
                give_gradients(net, 1)
                place_gradients(net)
                gradient = next(net.parameters()).grad
                assert isinstance(gradient, DTensor)
                gradient.to_local()[0, 0] = values[dist.get_rank()]
                with messages(found, f"{way}, {case}"):
                    opt.step()
                    opt.check()
                after = everything(net, opt)
            rested = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            found[f"{way}, {case}, rested"] = rested
    return found


def check_sequence_parallel() -> Any:
    """Norms between layers whose activations are split over the batch: their gradients are partial."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
    plan = mm.adapt(model, progress=False)
    if is_sharded():
        styles: dict[str, ParallelStyle] = {
            "0": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0)),
            "1": SequenceParallel(sequence_dim=0),
            "3": ColwiseParallel(input_layouts=Shard(0), output_layouts=Replicate()),
        }
        parallelize_module(model, world_mesh(dist.get_world_size()), styles)
    opt = mm.SteepestDescent(plan, 0.02, **HOW)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    partial_gradients = False
    for _ in range(5):
        opt.zero_grad()
        model(x).square().mean().backward()
        gradient: Any = model.get_parameter("1.weight").grad
        partial_gradients = is_sharded() and gradient.placements[0].is_partial()
        opt.step()
    return full_weights(model), partial_gradients


class Llama(nn.Module):
    """Llama of transformers, small, which gives logits."""

    def __init__(self) -> None:
        super().__init__()
        sizes = LlamaConfig(
            vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=12,
        )  # fmt: skip
        self.body = LlamaForCausalLM(sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, use_cache=False).logits


def parallelize(model: nn.Module) -> None:
    """Heads and hidden units over the processes, as is usual."""
    styles: dict[str, ParallelStyle] = {
        "body.model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
        "body.lm_head": ColwiseParallel(output_layouts=Replicate()),
    }
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        styles[f"body.model.layers.*.{name}"] = ColwiseParallel()
    for name in ("mlp.gate_proj", "mlp.up_proj"):
        styles[f"body.model.layers.*.{name}"] = ColwiseParallel()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        styles[f"body.model.layers.*.{name}"] = RowwiseParallel()
    parallelize_module(model, world_mesh(dist.get_world_size()), styles)


def check_llama() -> Any:
    """An adapted transformer that torch's tensor parallelism trains."""
    torch.manual_seed(0)
    model = Llama()
    plan = mm.adapt(model, progress=False)
    start = full_weights(model)
    if is_sharded():
        parallelize(model)
    opt = mm.SteepestDescent(plan, 0.02, **HOW)
    x, y = torch.randint(12, (2, 8, 12), generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        loss_backward(model, x, y)
        opt.step()
    return start, full_weights(model), str(opt.placement)


def check_compiled() -> Any:
    """Steps as they are, and compiled."""
    ends: list[Any] = []
    for is_compiled in (False, True):
        net, opt = perceptron()
        step: Callable[[], Any] = opt.step
        if is_compiled:
            step = torch.compile(opt.step, backend="eager")
        for seed in range(3):
            give_gradients(net, seed)
            step()
        ends.append(everything(net, opt))
    return ends

"""Twenty steps of every model of the zoo: the loss falls, constrained matrices stay on their manifolds, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from long_tests import mostly_long
from torch import Tensor, nn
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.adaptation.outputs import outputs_of

STEPS = 20


def loss_of(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """How far the outputs are from random classes: every output has a last dimension."""
    found = outputs_of(model, batch, None).tensor
    flat = found.flatten(0, -2) if found.dim() > 1 else found[None]
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(flat.shape[-1], (flat.shape[0],), generator=generator)
    return functional.cross_entropy(flat.float(), classes)


KEPT = ("gpt2", "mixtral", "resnet", "t5", "lora", "reader")
"""Models that also start where they are: fused, stacked, convolved, tied, frozen and recurrent weights."""

USUAL = {
    *((name, "project") for name in ("gpt2", "mixtral", "resnet", "reader")),
    ("lora", "keep"),
}
"""One model of each kind for the plain run."""


@pytest.mark.parametrize(
    ("name", "start"),
    mostly_long(
        [*((name, "project") for name in zoo.MODELS), *((name, "keep") for name in KEPT)],
        usual=lambda case: case in USUAL,
        several=True,
    ),
)
def test_twenty_steps_lower_the_loss_on_the_manifolds(name: str, start: Any) -> None:
    torch.manual_seed(0)
    model, batch = zoo.MODELS[name]()
    model.train()
    frozen = {
        path: each.detach().clone()
        for path, each in model.named_parameters()
        if not each.requires_grad
    }
    plan = mm.adapt(model, example_inputs=batch, start=start, progress=False)
    opt = mm.SteepestDescent(plan, lr=0.5, momentum=0.9, nesterov=True)
    model.eval()  # Dropout would hide how far the loss falls.
    first = float(loss_of(model, batch).detach())
    for _ in range(STEPS):
        opt.zero_grad()
        loss_of(model, batch).backward()
        opt.step()
    assert float(loss_of(model, batch).detach()) < 0.98 * first
    for row in mm.conditioning(plan).rows:
        assert row.residual <= 1e-5, row.path
    for path, before in frozen.items():
        assert torch.equal(model.get_parameter(path), before), path

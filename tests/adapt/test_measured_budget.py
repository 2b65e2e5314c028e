"""A measured budget bounds how far a step moves the outputs of a model that nobody tuned."""

from __future__ import annotations

import math

import pytest
import torch
from modular_manifolds_bench.adapted import (
    CONTEXT,
    VOCABULARY,
    Descent,
    Setting,
    Text,
    start,
    train,
)


@pytest.mark.parametrize("hidden", ["stiefel", "ball"])
def test_a_step_moves_the_outputs_by_its_rate_at_most(hidden: str) -> None:
    numbers = torch.randint(VOCABULARY, (4 * CONTEXT,), generator=torch.Generator().manual_seed(0))
    setting = Setting(hidden=hidden, width=16, depth=1, steps=4)
    loss, changes = train(setting, Text(numbers, numbers.flip(0)), watch_steps=4)
    assert loss < 1.3 * math.log(VOCABULARY)
    assert max(changes) <= 1.5
    assert max(changes) >= 0.1


def test_responses_times_shares_add_up_to_one() -> None:
    setting = Setting(width=16, depth=1)
    net, rows = start(setting)
    descent = Descent(net, rows, setting)
    tokens = torch.randint(VOCABULARY, (2, CONTEXT))
    found = descent.measure(tokens, tokens)
    total = sum(found[name] * share for name, share in descent.shares.items())
    assert total == pytest.approx(1.0, abs=1e-2)

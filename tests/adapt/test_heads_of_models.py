"""Heads: the last linear layer of what a model calls its head, and no other one."""

from __future__ import annotations

from torch import nn

import modular_manifolds as mm


def heads(**children: nn.Module) -> list[str]:
    plan = mm.adapt(nn.ModuleDict({"stem": nn.Linear(4, 8), **children}))
    return [row.parameter for row in plan.rows if row.role == "head"]


def test_of_the_layers_of_one_classifier_the_last_is_the_head() -> None:
    classifier = nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    assert heads(classifier=classifier) == ["classifier.4.weight"]


def test_the_last_layer_of_a_head_of_several_is_the_head() -> None:
    """As in RoBERTa (`classifier.out_proj`) and timm (`head.fc`)."""
    of_roberta = nn.ModuleDict({"dense": nn.Linear(8, 8), "out_proj": nn.Linear(8, 3)})
    # A ModuleDict holds heads beside each other.
    assert heads(classifier=of_roberta, last=nn.Linear(8, 8)) == ["last.weight"]
    head = nn.Module()
    head.add_module("dense", nn.Linear(8, 8))
    head.add_module("out_proj", nn.Linear(8, 3))
    assert heads(classifier=head, last=nn.Linear(8, 8)) == ["classifier.out_proj.weight"]


def test_heads_of_attention_are_no_heads() -> None:
    head = nn.Module()
    head.add_module("key", nn.Linear(8, 8))
    head.add_module("value", nn.Linear(8, 8))
    attention = nn.Module()
    attention.add_module("heads", nn.ModuleList([head]))
    assert heads(heads=nn.ModuleList([head]), last=nn.Linear(8, 8)) == ["last.weight"]
    assert heads(attention=attention, last=nn.Linear(8, 8)) == ["last.weight"]


def test_several_heads_beside_each_other_are_heads() -> None:
    both = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 3)])
    assert heads(heads=both, last=nn.Linear(8, 8)) == ["heads.0.weight", "heads.1.weight"]

"""Queries, keys and values: the pieces are those that the model itself computes with, head by head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from zoo import MODELS, output

import modular_manifolds as mm

FIRST = {
    "gpt2": "transformer.h.0.attn.c_attn.weight",
    "plain_gpt": "h.0.attn.c_attn.weight",
    "phi3": "model.layers.0.self_attn.qkv_proj.weight",
    "neox": "gpt_neox.layers.0.attention.query_key_value.weight",
    "bloom": "transformer.h.0.self_attention.query_key_value.weight",
    "falcon": "transformer.h.0.self_attention.query_key_value.weight",
    "falcon_new": "transformer.h.0.self_attention.query_key_value.weight",
    "falcon_many": "transformer.h.0.self_attention.query_key_value.weight",
    "big_code": "transformer.h.0.attn.c_attn.weight",
    "transformer": "decoder.layers.0.self_attn.in_proj_weight",
}


@pytest.mark.parametrize("name", FIRST)
@torch.no_grad()
def test_the_pieces_are_what_attention_computes_with(name: str) -> None:
    model, batch = MODELS[name]()
    plan = mm.adapt(model, start="keep")
    parameters = dict(model.named_parameters())
    stored = parameters[FIRST[name]].data
    bias = parameters.get(FIRST[name].replace("weight", "bias"))
    if bias is not None:
        bias.zero_()
    pieces = {row.name[-2]: row.piece for row in plan.rows if row.parameter == FIRST[name]}
    assert list(pieces) == ["q", "k", "v"]

    def view(part: str, *, heads: slice = slice(None)) -> Tensor:
        piece = pieces[part]
        assert piece is not None
        return piece.view(stored)[heads]

    def randomise(tensor: Tensor) -> None:
        tensor.copy_(torch.randn(tensor.shape))

    # Without values attention does not depend on queries and keys.
    view("v").zero_()
    before = output(model, batch)
    randomise(view("q"))
    randomise(view("k"))
    assert torch.allclose(output(model, batch), before, atol=1e-5)
    randomise(view("v"))
    assert not torch.allclose(output(model, batch), before)

    # Queries that are zero meet every key of their own head alike, and no key of another.
    group = max(1, view("q").shape[0] // view("k").shape[0])
    randomise(stored)
    view("q", heads=slice(group)).zero_()
    before = output(model, batch)
    randomise(view("k", heads=slice(1)))
    assert torch.allclose(output(model, batch), before, atol=1e-5)
    if view("k").shape[0] > 1:
        randomise(view("k", heads=slice(1, 2)))
        assert not torch.allclose(output(model, batch), before, atol=1e-3)

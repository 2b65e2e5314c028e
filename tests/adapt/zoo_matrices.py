"""The matrices of every model of the zoo, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Shape = tuple[int, ...]
HEADS: Final[Shape] = (4, 8, 32)
GROUPS: Final[Shape] = (2, 8, 32)
SQUARE: Final[Shape] = (32, 32)


def qkv(name: str, *, keys: Shape = HEADS) -> dict[str, Shape]:
    return {f"{name}[q]": HEADS, f"{name}[k]": keys, f"{name}[v]": keys}


def three(q: str, k: str, v: str, *, keys: Shape = HEADS) -> dict[str, Shape]:
    return {q: HEADS, k: keys, v: keys}


MLP: Final[dict[str, Shape]] = {
    "mlp.gate_proj.weight": (48, 32),
    "mlp.up_proj.weight": (48, 32),
    "mlp.down_proj.weight": (32, 48),
}
EXPERTS: Final[dict[str, Shape]] = {
    "mlp.experts.gate_up_proj[gate]": (3, 48, 32),
    "mlp.experts.gate_up_proj[up]": (3, 48, 32),
    "mlp.experts.down_proj": (3, 32, 48),
}
LLAMA: Final[dict[str, Shape]] = {
    **three(
        "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", keys=GROUPS
    ),
    "self_attn.o_proj.weight": SQUARE,
}
GPT2: Final[dict[str, Shape]] = {
    "attn.c_proj.weight": SQUARE,
    "mlp.c_fc.weight": (128, 32),
    "mlp.c_proj.weight": (32, 128),
}
FOUR_TIMES: Final[dict[str, Shape]] = {
    "mlp.dense_h_to_4h.weight": (128, 32),
    "mlp.dense_4h_to_h.weight": (32, 128),
}


def layers(
    prefix: str, of: Mapping[str, Shape], *, numbers: tuple[int, ...] = (0, 1)
) -> dict[str, Shape]:
    return {f"{prefix}.{i}.{name}": shape for i in numbers for name, shape in of.items()}


def recurrent(path: str, names: str, outputs: int, sizes: tuple[int, ...]) -> dict[str, Shape]:
    return {
        f"{path}.weight_{kind}_l{layer}[{gate}]": (outputs, n)
        for layer, size in enumerate(sizes)
        for kind, n in (("ih", size), ("hh", outputs))
        for gate in names.split()
    }


MATRICES: Final[Mapping[str, Mapping[str, Shape]]] = {
    "gpt2": {
        "transformer.wte.weight": (60, 32),
        "transformer.wpe.weight": (16, 32),
        **layers("transformer.h", {**qkv("attn.c_attn.weight"), **GPT2}),
    },
    "llama": {
        "model.embed_tokens.weight": (60, 32),
        **layers("model.layers", {**LLAMA, **MLP}),
        "lm_head.weight": (60, 32),
    },
    "qwen": {
        "model.embed_tokens.weight": (60, 32),
        **layers("model.layers", {**LLAMA, **MLP}),
        "lm_head.weight": (60, 32),
    },
    "mixtral": {
        "model.embed_tokens.weight": (60, 32),
        **layers("model.layers", {**LLAMA, "mlp.gate.weight": (3, 32), **EXPERTS}),
        "lm_head.weight": (60, 32),
    },
    "gpt_oss": {
        "model.embed_tokens.weight": (60, 32),
        **layers("model.layers", {**LLAMA, "mlp.router.weight": (3, 32), **EXPERTS}),
        "lm_head.weight": (60, 32),
    },
    "phi3": {
        "model.embed_tokens.weight": (60, 32),
        **layers(
            "model.layers",
            {
                **qkv("self_attn.qkv_proj.weight", keys=GROUPS),
                "self_attn.o_proj.weight": SQUARE,
                "mlp.gate_up_proj.weight[gate]": (48, 32),
                "mlp.gate_up_proj.weight[up]": (48, 32),
                "mlp.down_proj.weight": (32, 48),
            },
        ),
        "lm_head.weight": (60, 32),
    },
    "gemma": {
        "model.embed_tokens.weight": (60, 32),
        **layers(
            "model.layers",
            {
                "self_attn.q_proj.weight": (4, 16, 32),
                "self_attn.k_proj.weight": (2, 16, 32),
                "self_attn.v_proj.weight": (2, 16, 32),
                "self_attn.o_proj.weight": (32, 64),
                **MLP,
            },
        ),
    },
    "bert": {
        "bert.embeddings.word_embeddings.weight": (60, 32),
        "bert.embeddings.position_embeddings.weight": (32, 32),
        "bert.embeddings.token_type_embeddings.weight": (2, 32),
        **layers(
            "bert.encoder.layer",
            {
                **three(*(f"attention.self.{each}.weight" for each in ("query", "key", "value"))),
                "attention.output.dense.weight": SQUARE,
                "intermediate.dense.weight": (48, 32),
                "output.dense.weight": (32, 48),
            },
        ),
        "bert.pooler.dense.weight": SQUARE,
        "classifier.weight": (2, 32),
    },
    "distilbert": {
        "distilbert.embeddings.word_embeddings.weight": (60, 32),
        "distilbert.embeddings.position_embeddings.weight": (512, 32),
        **layers(
            "distilbert.transformer.layer",
            {
                **three(*(f"attention.{each}_lin.weight" for each in "qkv")),
                "attention.out_lin.weight": SQUARE,
                "ffn.lin1.weight": (48, 32),
                "ffn.lin2.weight": (32, 48),
            },
        ),
        "pre_classifier.weight": SQUARE,
        "classifier.weight": (2, 32),
    },
    "vit": {
        "vit.embeddings.position_embeddings": (5, 32),
        "vit.embeddings.patch_embeddings.projection.weight": (32, 48),
        **layers(
            "vit.layers",
            {
                **three(*(f"attention.{each}_proj.weight" for each in "qkv")),
                "attention.o_proj.weight": SQUARE,
                "mlp.fc1.weight": (48, 32),
                "mlp.fc2.weight": (32, 48),
            },
        ),
        "classifier.weight": (2, 32),
    },
    "resnet": {
        "resnet.embedder.embedder.convolution.weight": (8, 3 * 49),
        "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": (8, 8 * 9),
        "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight": (8, 8 * 9),
        "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight": (16, 8),
        "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight": (16, 8 * 9),
        "resnet.encoder.stages.1.layers.0.layer.1.convolution.weight": (16, 16 * 9),
        "classifier.1.weight": (2, 16),
    },
    "t5": {
        "shared.weight": (60, 32),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 4),
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 4),
        **{
            f"{side}.block.{i}.layer.{at}.{kind}.{each}.weight": SQUARE if each == "o" else HEADS
            for side, at, kind in (
                ("encoder", 0, "SelfAttention"),
                ("decoder", 0, "SelfAttention"),
                ("decoder", 1, "EncDecAttention"),
            )
            for i in (0, 1)
            for each in "qkvo"
        },
        **layers("encoder.block", {"layer.1.DenseReluDense.wi.weight": (48, 32)}),
        **layers("encoder.block", {"layer.1.DenseReluDense.wo.weight": (32, 48)}),
        **layers("decoder.block", {"layer.2.DenseReluDense.wi.weight": (48, 32)}),
        **layers("decoder.block", {"layer.2.DenseReluDense.wo.weight": (32, 48)}),
    },
    "transformer": {
        **{
            name: shape
            for side in ("encoder", "decoder")
            for name, shape in {
                **qkv(f"{side}.layers.0.self_attn.in_proj_weight"),
                f"{side}.layers.0.self_attn.out_proj.weight": SQUARE,
                f"{side}.layers.0.linear1.weight": (48, 32),
                f"{side}.layers.0.linear2.weight": (32, 48),
            }.items()
        },
        **qkv("decoder.layers.0.multihead_attn.in_proj_weight"),
        "decoder.layers.0.multihead_attn.out_proj.weight": SQUARE,
    },
    "plain_gpt": {
        "wte.weight": (60, 32),
        "wpe.weight": (16, 32),
        **layers(
            "h",
            {
                **qkv("attn.c_attn.weight"),
                "attn.c_proj.weight": SQUARE,
                "mlp.0.weight": (128, 32),
                "mlp.2.weight": (32, 128),
            },
        ),
    },
    "lora": {
        f"base_model.model.model.layers.{i}.{module}.lora_{side}.default.weight": shape
        for i in (0, 1)
        for module, outputs, inputs in (
            ("self_attn.q_proj", 32, 32),
            ("self_attn.v_proj", 16, 32),
            ("mlp.down_proj", 32, 48),
        )
        for side, shape in (("A", (4, inputs)), ("B", (outputs, 4)))
    },
    "neox": {
        "gpt_neox.embed_in.weight": (60, 32),
        **layers(
            "gpt_neox.layers",
            {
                **qkv("attention.query_key_value.weight"),
                "attention.dense.weight": SQUARE,
                "mlp.dense_h_to_4h.weight": (48, 32),
                "mlp.dense_4h_to_h.weight": (32, 48),
            },
        ),
        "lm_head.weight": (60, 32),
    },
    **{
        name: {
            "transformer.word_embeddings.weight": (60, 32),
            **layers(
                "transformer.h",
                {
                    **split,
                    "self_attention.dense.weight": SQUARE,
                    **FOUR_TIMES,
                },
            ),
        }
        for name, split in {
            "bloom": qkv("self_attention.query_key_value.weight"),
            "falcon": qkv("self_attention.query_key_value.weight", keys=(1, 8, 32)),
            "falcon_many": qkv("self_attention.query_key_value.weight"),
            "falcon_new": {
                **qkv("self_attention.query_key_value.weight", keys=GROUPS),
                "self_attention.query_key_value.weight[q]": (2, 2, 8, 32),
            },
        }.items()
    },
    "big_code": {
        "transformer.wte.weight": (60, 32),
        "transformer.wpe.weight": (16, 32),
        **layers("transformer.h", {**qkv("attn.c_attn.weight", keys=(1, 8, 32)), **GPT2}),
    },
    "opt": {
        "model.decoder.embed_tokens.weight": (60, 32),
        "model.decoder.embed_positions.weight": (34, 32),
        **layers(
            "model.decoder.layers",
            {
                **three(*(f"self_attn.{each}_proj.weight" for each in "qkv")),
                "self_attn.out_proj.weight": SQUARE,
                "fc1.weight": (48, 32),
                "fc2.weight": (32, 48),
            },
        ),
    },
    "reader": {
        "conv.weight": (16, 4 * 3),
        "depthwise.weight": (16, 1, 3),
        "grouped.weight": (4, 8, 4 * 3),
        "up.weight": (8, 32 * 4),
        **recurrent("lstm", "input forget cell output", 6, (8, 6)),
        **recurrent("gru", "reset update new", 5, (6,)),
        "mix.weight": (7, 25),
        "classifier.weight": (3, 7),
    },
}
"""The logical shape (*stack, out, in) of every logical matrix; what is not listed is a vector."""

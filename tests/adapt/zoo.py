"""Small models of many kinds, each with the batch that it takes; nothing is downloaded."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

logging.getLogger("transformers").setLevel(logging.ERROR)

Model = tuple[nn.Module, dict[str, Any]]
TOKENS: Final = 60


def tokens(length: int = 8) -> Tensor:
    return torch.randint(TOKENS - 8, (2, length), generator=torch.Generator().manual_seed(1))


def text(**more: Any) -> dict[str, Any]:
    return {"input_ids": tokens(), **more}


def hugging_face(name: str, config: str, settings: Mapping[str, Any]) -> nn.Module:
    import transformers

    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    kind = getattr(transformers, config)
    return getattr(transformers, name)(kind(**{**ids, **settings}))


SMALL: Final = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
GROUPED: Final = {**SMALL, "num_key_value_heads": 2}


def gpt2() -> Model:
    settings = {"vocab_size": TOKENS, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 16}
    return hugging_face("GPT2LMHeadModel", "GPT2Config", settings), text()


def llama() -> Model:
    return hugging_face("LlamaForCausalLM", "LlamaConfig", GROUPED), text()


def mixtral() -> Model:
    settings = {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}
    return hugging_face("MixtralForCausalLM", "MixtralConfig", settings), text()


def phi3() -> Model:
    return hugging_face("Phi3ForCausalLM", "Phi3Config", GROUPED), text()


def bert() -> Model:
    return hugging_face("BertForSequenceClassification", "BertConfig", SMALL), text()


def vit() -> Model:
    settings = {**SMALL, "image_size": 8, "patch_size": 4}
    del settings["vocab_size"], settings["max_position_embeddings"]
    model = hugging_face("ViTForImageClassification", "ViTConfig", settings)
    return model, {"pixel_values": torch.randn(2, 3, 8, 8)}


def resnet() -> Model:
    settings = {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    }
    import transformers

    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**settings))
    return model, {"pixel_values": torch.randn(2, 3, 32, 32)}


def t5() -> Model:
    settings = {
        "vocab_size": TOKENS,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    return hugging_face("T5ForConditionalGeneration", "T5Config", settings), text(
        decoder_input_ids=tokens(5)
    )


def neox() -> Model:
    return hugging_face("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL), text()


def bloom() -> Model:
    settings = {"vocab_size": TOKENS, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    return hugging_face("BloomForCausalLM", "BloomConfig", settings), text()


def falcon(**more: Any) -> Model:
    settings = {
        "vocab_size": TOKENS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return hugging_face("FalconForCausalLM", "FalconConfig", {**settings, **more}), text()


def opt() -> Model:
    settings = {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}
    return hugging_face("OPTForCausalLM", "OPTConfig", settings), text()


def qwen() -> Model:
    return hugging_face("Qwen2ForCausalLM", "Qwen2Config", GROUPED), text()


def gemma() -> Model:
    return hugging_face("GemmaForCausalLM", "GemmaConfig", {**GROUPED, "head_dim": 16}), text()


def distilbert() -> Model:
    settings = {"vocab_size": TOKENS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    return hugging_face("DistilBertForSequenceClassification", "DistilBertConfig", settings), text()


def big_code() -> Model:
    settings = {"vocab_size": TOKENS, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 16}
    return hugging_face("GPTBigCodeForCausalLM", "GPTBigCodeConfig", settings), text()


def gpt_oss() -> Model:
    settings = {**GROUPED, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2}
    return hugging_face("GptOssForCausalLM", "GptOssConfig", settings), text()


def transformer() -> Model:
    model = nn.Transformer(
        32,
        4,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dim_feedforward=48,
        batch_first=True,
        dropout=0.0,
    )
    return model, {"src": torch.randn(2, 6, 32), "tgt": torch.randn(2, 5, 32)}


class Attention(nn.Module):
    """The attention of nanoGPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.n_head = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            each.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for each in self.c_attn(x).chunk(3, -1)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class PlainGPT(nn.Module):
    """A GPT as in nanoGPT, with the head tied to the embedding."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, width), nn.Embedding(16, width)
        self.h = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, TOKENS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def plain_gpt() -> Model:
    return PlainGPT(), {"idx": tokens()}


def lora() -> Model:
    import peft

    model, batch = llama()
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings(action="ignore"):
        # peft asks transformers by a name that transformers has deprecated.
        return peft.get_peft_model(model, config), batch


class Reader(nn.Module):
    """Convolutions and recurrent layers, as speech models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 16, 3)
        self.depthwise = nn.Conv1d(16, 16, 3, groups=16)
        self.grouped = nn.Conv1d(16, 32, 3, groups=4)
        self.up = nn.ConvTranspose1d(32, 8, 4, stride=2)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.mix = nn.Bilinear(5, 5, 7)
        self.scale = nn.Parameter(torch.ones(()))
        self.classifier = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.grouped(self.depthwise(self.conv(x)))).mT
        x = self.gru(self.lstm(x)[0])[0]
        return self.classifier(self.mix(x, x) * self.scale)


def reader() -> Model:
    return Reader(), {"x": torch.randn(2, 4, 16)}


MODELS: Final[Mapping[str, Callable[[], Model]]] = {
    "gpt2": gpt2,
    "llama": llama,
    "mixtral": mixtral,
    "phi3": phi3,
    "bert": bert,
    "vit": vit,
    "resnet": resnet,
    "t5": t5,
    "transformer": transformer,
    "plain_gpt": plain_gpt,
    "lora": lora,
    "neox": neox,
    "bloom": bloom,
    "falcon": falcon,
    "falcon_new": lambda: falcon(new_decoder_architecture=True, num_kv_heads=2),
    "falcon_many": lambda: falcon(multi_query=False),
    "opt": opt,
    "qwen": qwen,
    "gemma": gemma,
    "distilbert": distilbert,
    "big_code": big_code,
    "gpt_oss": gpt_oss,
    "reader": reader,
}


def output(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    model.eval()
    with torch.no_grad():
        found = model(**batch)
    return found if isinstance(found, Tensor) else found.logits

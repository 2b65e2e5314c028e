"""Known modules: the role of a parameter, and how its module stores it.

Modules of torch are recognised by their class; those of other libraries by the names of their classes, so that none of
them is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from torch import nn

from modular_manifolds.adapt.attention import QKV, projection_split
from modular_manifolds.adapt.defaults import PER_HEAD, Role
from modular_manifolds.adapt.place import Place, class_path
from modular_manifolds.adapt.split import Split
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom

HEAD_WORDS: Final = (
    *("lm_head", "head", "classifier", "score", "embed_out", "qa_outputs", "output_projection"),
    *("predictions", "fc", "logits", "vocab_projector", "heads", "cls", "mc_head"),
)
"""Names of the last layer of a model; only of linear layers, and `fc` only as a child of the model itself."""
ROW_WORDS: Final = ("pos", "embed", "token", "quer", "latent", "prompt", "table", "codebook")
"""Fragments of names of parameters that are tables of vectors."""
CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
GATES: Final = (
    (nn.LSTM, ("input", "forget", "cell", "output")),
    (nn.LSTMCell, ("input", "forget", "cell", "output")),
    (nn.GRU, ("reset", "update", "new")),
    (nn.GRUCell, ("reset", "update", "new")),
)
GATED: Final = ("gate_up_proj", "gate_and_up_proj")
TRANSPOSED_EXPERTS: Final = ("Llama4", "Aria", "GptOss", "OpenAIPrivacyFilter")


@dataclass(frozen=True)
class Known:
    """The facts that the library knows about a parameter.

    Args:
        role: the role, from which the defaults follow.
        split: how the tensor is stored and cut; None for a matrix (out, in) or a vector.
        source: the module that says so, for the table.
        geometry: the geometry of an atom of this library inside the model.
        fixed_rows: why no row of the weight may be moved by a manifold; empty if nothing forbids it.
    """

    role: Role
    split: Split | None
    source: str
    geometry: Geometry | None = None
    fixed_rows: str = ""


def recognise(place: Place, *, outputs: frozenset[int]) -> Known | None:
    """Look up the facts about a parameter; None if the library knows nothing about it.

    Args:
        place: the parameter and the modules around it.
        outputs: the ids of the modules that compute the model's outputs.
    """
    module, source = place.module, type(place.module).__name__
    if isinstance(module, Atom):
        return Known("hidden", None, source, module.geometry)
    if _is_vector(place):
        return Known("vector", None, source)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Known("embedding", None, source, fixed_rows=_fixed_rows(module))
    if isinstance(module, nn.MultiheadAttention):
        return Known("hidden", _own_attention(place.own, module), source)
    lora = _lora(place)
    if lora is not None:
        return lora
    if isinstance(module, CONVOLUTIONS):
        split = Split(heads=module.groups if module.groups > 1 else None)
        return Known("hidden", split, source)
    if isinstance(module, TRANSPOSED):
        groups = module.groups if module.groups > 1 else None
        return Known("hidden", Split(heads=groups, dim=1, transpose=True), source)
    for kind, names in GATES:
        if isinstance(module, kind) and "weight_hr" not in place.own:
            return Known("hidden", Split(parts=len(names), names=names), source)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.Bilinear):
        return Known("hidden", Split(), source)
    if place.parameter.dim() == 2 and place.own == "weight":
        return _linear(place, outputs)
    return _bare(place)


def output_modules(model: nn.Module) -> frozenset[int]:
    """The ids of the linear layers that compute the outputs of a model.

    It is what `model.get_output_embeddings()` gives, a linear layer by one of the known names, or else the last linear layer
    if it stands in the model itself or in `nn.Sequential` containers.
    """
    find = getattr(model, "get_output_embeddings", None)
    try:
        stated = find() if callable(find) else None
    except (AttributeError, NotImplementedError, TypeError):
        stated = None
    if isinstance(stated, nn.Module):
        return frozenset([id(stated)])
    linear = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear)]
    named = [id(m) for path, m in linear if _named_head(path)]
    if named or not linear:
        return frozenset(named)
    path, last = linear[-1]
    around: nn.Module = model
    for word in path.split(".")[:-1]:
        around = around.get_submodule(word)
        if not isinstance(around, nn.Sequential):
            return frozenset()
    return frozenset([id(last)])


def _named_head(path: str) -> bool:
    words = path.split(".")
    word = next((each for each in reversed(words) if not each.isdigit()), "")
    return word in HEAD_WORDS and (word != "fc" or len(words) == 1)


def _is_vector(place: Place) -> bool:
    shape = place.parameter.shape
    if place.parameter.dim() <= 1 or "bias" in place.own.split("_") or place.own.endswith("bias"):
        return True
    return place.own != "weight" and sum(size > 1 for size in shape) <= 1


def _linear(place: Place, outputs: frozenset[int]) -> Known:
    """A matrix that is called `weight`: (out, in), or (in, out) in `Conv1D` of transformers."""
    module, source = place.module, type(place.module).__name__
    transposed = class_path(module) == "transformers.pytorch_utils.Conv1D"
    # Torch's linear layers are known to store (out, in); of other classes nobody can say that a rule is wrong.
    stored = True if transposed else False if isinstance(module, nn.Linear) else None
    whole = Split(transpose=stored)
    if id(module) in outputs:
        return Known("head", whole, source)
    size = place.parameter.shape[1 if transposed else 0]
    split = projection_split(place.word, place.parent, size)
    if split is not None:
        source = f"{type(place.parent).__name__}.{place.word}"
        if not PER_HEAD:
            split = _without_heads(split, size)
    elif place.word in GATED and size % 2 == 0:
        split = Split(parts=2, names=("gate", "up"))
    return Known("hidden", whole if split is None else replace(split, transpose=stored), source)


def _own_attention(own: str, module: nn.MultiheadAttention) -> Split | None:
    heads = module.num_heads
    if own == "in_proj_weight":
        split, size = Split(heads=(heads,) * 3, names=QKV), 3 * module.embed_dim
    else:
        split, size = Split(heads=heads), module.embed_dim
    return split if PER_HEAD else _without_heads(split, size)


def _lora(place: Place) -> Known | None:
    """LoRA's pairs in peft: A (rank, in) and B (out, rank); for embeddings A is stored as (rank, tokens)."""
    words = (place.word, *place.words[1:2], place.own)
    for word in words:
        if word == "lora_embedding_A":
            return Known("increment", Split(transpose=True), word)
        if word in ("lora_B", "lora_embedding_B"):
            return Known("increment", Split(), word)
        if word == "lora_A":
            return Known("hidden", Split(), word)
    return None


def _bare(place: Place) -> Known | None:
    """A parameter that a module holds itself: a stack of experts, a table of vectors, or a matrix."""
    parameter, own = place.parameter, place.own
    kind = type(place.module).__name__
    if parameter.dim() == 3 and "expert" in kind.lower():
        transpose = getattr(place.module, "is_transposed", kind.startswith(TRANSPOSED_EXPERTS))
        if own not in GATED:
            return Known("hidden", Split(experts=True, transpose=bool(transpose)), kind)
        alternate = not getattr(place.module, "is_concatenated", True)
        split = Split(
            parts=2,
            names=("gate", "up"),
            experts=True,
            transpose=bool(transpose),
            interleaved=alternate,
        )
        return Known("hidden", split, kind)
    if any(word in own.lower() for word in ROW_WORDS):
        return Known("position", None, kind)
    if parameter.dim() == 2:
        return Known("hidden", None, kind)
    return None


def _fixed_rows(module: nn.Embedding | nn.EmbeddingBag) -> str:
    if module.padding_idx is not None:
        return f"padding_idx={module.padding_idx}"
    return f"max_norm={module.max_norm}" if module.max_norm is not None else ""


def _without_heads(split: Split, size: int) -> Split | None:
    """The same parts, each of them one matrix."""
    if isinstance(split.heads, int) or split.heads is None:
        return None
    if split.interleaved:
        return split
    unit = size // sum(split.heads)
    return Split(sizes=tuple(unit * each for each in split.heads), names=split.names)

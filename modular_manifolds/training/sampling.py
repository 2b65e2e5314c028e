"""Text that a trained network writes."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError
from modular_manifolds.nn import Module
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.tokens import Tokens, Vocabulary, tokens_of

LENGTH: Final = 500
"""The number of characters in a sample."""
TEMPERATURE: Final = 0.8
"""The divisor of the logits."""


@torch.no_grad()
def sample(
    net: Module,
    prompts: Tensor,
    *,
    length: int,
    context: int,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Tensor:
    """Draw `length` tokens behind each prompt, each from softmax(outputs/temperature) at the last position.

    Of a row of outputs z the token `argmax_i (z_i/temperature − log e_i)` is taken, e_i exponential random
    numbers: it is i with probability softmax(z/temperature)_i. At temperature 0 it is the largest z.

    Args:
        net: from tokens (batch, positions) to outputs (batch, positions, vocabulary).
        prompts: tokens, int64 of shape (batch, positions), at least one position; not written into.
        length: how many tokens to draw.
        context: how many of the last tokens the network sees.
        temperature: above 1 bolder, below 1 safer, 0 for the likeliest token.
        seed: draws the same on every device, up to the rounding of the outputs.

    Returns:
        Prompts and what follows, int64 of shape (batch, positions + length), on the prompts' device.

    Raises:
        ArgumentError: a number is out of range.
        ShapeError: there is no prompt.
        NonFiniteError: an output is NaN or infinite.

    Source: the Gumbel-max trick, E. J. Gumbel, "Statistical theory of extreme values" (1954).
    """
    _check(prompts, length, context, temperature)
    generator = torch.Generator().manual_seed(seed)
    batch, given = prompts.shape
    tokens = prompts.new_zeros(batch, given + length)
    tokens[:, :given] = prompts
    finite = torch.ones((), dtype=torch.bool, device=prompts.device)
    for place in range(given, given + length):
        outputs = net(tokens[:, max(0, place - context) : place])[:, -1].float()
        finite &= torch.isfinite(outputs).all()
        if temperature > 0:
            noise = torch.empty(outputs.shape).exponential_(generator=generator).to(outputs)
            outputs = outputs / temperature - noise.log()
        tokens[:, place] = outputs.argmax(dim=-1)
    if not bool(finite):
        raise NonFiniteError(
            "the network's outputs", "must be finite", "NaN or infinity", "Look at its weights."
        )
    return tokens


def write(
    net: Module,
    text: TextSpec,
    prompt: str | None = None,
    *,
    length: int = LENGTH,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> str:
    """The text that `net`, trained on `text`, writes behind `prompt`; the prompt is not repeated.

    Args:
        net: the network of a session, or `load_trained(directory)` of a run directory.
        text: `data` of the resolved run: its tokens and context.
        prompt: of characters that the text has; the start of a line without it.
        length: how many tokens to write, characters unless the run has other tokens.
        temperature: above 1 bolder, below 1 safer, 0 for the likeliest token.
        seed: the seed of the draws.

    Raises:
        DataError: the prompt has a character that the text has not.
        ArgumentError: a number is out of range, the prompt is empty, or the run is not resolved.
        NonFiniteError: an output is NaN or infinite.
    """
    known = tokens_of(text)
    if known is None:
        raise ArgumentError(
            "write(text)",
            "must hold the characters of the text",
            "null",
            "Pass the data of a run directory's run.yaml.",
        )
    if prompt == "":
        raise ArgumentError(
            "write(prompt)", "must hold a character", "''", "Leave it out for a new line."
        )
    device = next((each.device for each in net.parameters()), torch.device("cpu"))
    given = known.encode(_first(known) if prompt is None else prompt)
    if not len(given):
        # A tokenizer may have no token for a line's end.
        given = torch.zeros(1, dtype=torch.int64)
    start = given.unsqueeze(0).to(device)
    tokens = sample(
        net, start, length=length, context=text.context, temperature=temperature, seed=seed
    )
    return known.decode(tokens[0, start.shape[1] :])


def _first(known: Tokens) -> str:
    """The end of a line, after which a new one starts, or a character if there are no lines."""
    return (
        known.characters[0]
        if isinstance(known, Vocabulary) and "\n" not in known.characters
        else "\n"
    )


def _check(prompts: Tensor, length: int, context: int, temperature: float) -> None:
    if prompts.dim() != 2 or prompts.shape[1] == 0:
        raise ShapeError(
            "sample(prompts)",
            "must be tokens of shape (batch, positions), with at least one position",
            tuple(prompts.shape),
            "Start from one token, such as that of a new line.",
        )
    for name, value, least in (("length", length, 0), ("context", context, 1)):
        if value < least:
            raise ArgumentError(
                f"sample({name})", f"must be at least {least}", value, "Pass more tokens."
            )
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ArgumentError(
            "sample(temperature)",
            "must be finite and at least 0",
            temperature,
            "Pass 0 for the likeliest token, or a number such as 0.8.",
        )

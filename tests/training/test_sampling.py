"""A network writes by its probabilities, its context and its seed."""

from __future__ import annotations

import math

import pytest
import torch
from prose import OneHot, bigram
from torch import Tensor

from modular_manifolds.errors import ArgumentError, DataError, NonFiniteError, ShapeError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.sampling import sample, write
from modular_manifolds.training.text import Text


class TestSampling:
    def test_at_temperature_zero_it_is_the_likeliest(self) -> None:
        net = bigram(4 * torch.eye(5).roll(1, dims=1).double())  # after i comes i + 1
        prompts = torch.tensor([[3], [0]])
        drawn = sample(net, prompts, length=6, context=2, temperature=0)
        assert drawn.tolist() == [[3, 4, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0, 1]]
        assert prompts.tolist() == [[3], [0]]

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_tokens_are_drawn_by_their_probability(self, temperature: float) -> None:
        row = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
        prompts = torch.zeros(4000, 1, dtype=torch.int64)
        drawn = sample(
            bigram(row.expand(4, 4)), prompts, length=2, context=1, temperature=temperature
        )
        for column in drawn[:, 1:].T:
            seen = torch.bincount(column, minlength=4).double() / len(column)
            # Four standard deviations of a frequency over 4,000 draws are at most 0.032.
            torch.testing.assert_close(seen, (row / temperature).softmax(dim=0), atol=0.032, rtol=0)

    def test_the_network_sees_the_context_and_no_more(self) -> None:
        seen = []

        class Watching(OneHot):
            def forward(self, x: Tensor) -> Tensor:
                seen.append(x.tolist())
                return super().forward(x)

        sample(Watching(3), torch.tensor([[0, 1]]), length=3, context=3, temperature=0)
        assert seen == [[[0, 1]], [[0, 1, 1]], [[1, 1, 1]]]

    def test_a_seed_decides(self, text: Text) -> None:
        net = bigram(torch.zeros(text.in_features, text.in_features).double())
        torch.manual_seed(1)
        first = write(net, text.spec, "the ", length=40, seed=3)
        torch.manual_seed(2)
        assert write(net, text.spec, "the ", length=40, seed=3) == first
        assert write(net, text.spec, "the ", length=40, seed=4) != first
        assert len(first) == 40

    def test_mistakes_are_refused(self, text: Text) -> None:
        net = bigram(torch.zeros(text.in_features, text.in_features).double())
        with pytest.raises(DataError, match="characters that the network knows, got '€'"):
            write(net, text.spec, "a €")
        with pytest.raises(ArgumentError, match=r"write\(prompt\) must hold a character"):
            write(net, text.spec, "")
        with pytest.raises(ArgumentError, match="must hold the characters of the text"):
            write(net, TextSpec(name="text"))
        prompt = torch.zeros(1, 1, dtype=torch.int64)
        for temperature in (-1.0, math.nan, math.inf):
            with pytest.raises(ArgumentError, match=r"sample\(temperature\) must be finite"):
                sample(net, prompt, length=1, context=1, temperature=temperature)
        with pytest.raises(ArgumentError, match=r"sample\(length\) must be at least 0, got -1"):
            sample(net, prompt, length=-1, context=1)
        with pytest.raises(ShapeError, match=r"sample\(prompts\)"):
            sample(net, prompt[:, :0], length=1, context=1)

    def test_an_output_that_is_not_finite_is_refused(self) -> None:
        net = bigram(torch.full((3, 3), torch.nan).double())
        with pytest.raises(NonFiniteError, match="the network's outputs must be finite"):
            sample(net, torch.zeros(1, 1, dtype=torch.int64), length=2, context=1)

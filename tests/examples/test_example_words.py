"""The example of word embeddings: tokens, rules and their comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from scripts_of_examples import example

import modular_manifolds as mm


@pytest.fixture(scope="module")
def word_embedding() -> ModuleType:
    return example("word_embedding")


@pytest.fixture(scope="module")
def words(word_embedding: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Words of a made-up language: which word comes next depends on the last one, and most words are rare."""
    random = Random(0)
    last, text = 1, []
    for _ in range(900):
        last = min(int(60 * random.random() ** 3) + last % 5, 59)
        text.append(f"w{last}{random.choice([' ', ' ', ', ', chr(10)])}")
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("".join(text))
    return word_embedding.read_words(path, vocabulary=40, context=8)


def test_words_become_tokens_in_order_of_their_frequency(
    word_embedding: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Don't go, go! Go\nno GO\n" + "strange")
    found = word_embedding.read_words(path, vocabulary=3, context=2)
    # Training: don't go , go ! go . no go . with . for the end of a line.
    assert found.train.tokens.tolist() == [0, 1, 0, 1, 0, 1, 2, 0, 1, 2]
    assert found.test.tokens.tolist() == [0]
    assert found.counts.tolist() == [4, 4, 2]


def test_the_rules_differ_in_the_rows_that_a_batch_does_not_contain(
    word_embedding: ModuleType,
) -> None:
    kept: dict[str, torch.Tensor] = {}
    for method in word_embedding.METHODS:
        torch.manual_seed(0)
        net = mm.models.GPT(6, width=16, depth=1)
        weight = net.get_parameter("embedding.weight")
        steppers = word_embedding.optimisers(net, word_embedding.Trial(method, 1.0, 0.1))
        momentum = steppers[0].state[weight]["momentum"]
        for tokens in ([[1, 2]], [[2, 3]]):
            before, averages = weight.detach().clone(), momentum.clone()
            net.zero_grad()
            net(torch.tensor(tokens)).square().sum().backward()
            word_embedding.prepare_absent_rows_(method, weight, momentum)
            for stepper in steppers:
                stepper.step()
        moved = (weight.detach() - before).square().mean(dim=1).sqrt() > 1e-4
        wanted = [word_embedding.AT_REST, word_embedding.DAMPED, word_embedding.KEPT]
        rows = [2, 3] if method in wanted else [] if method == "frozen" else [1, 2, 3]
        assert moved.nonzero().flatten().tolist() == rows, method
        kept[method] = momentum[1] / averages[1]
    for method, left in {"at rest": 0.9, "momentum kept": 1.0, "every row moves": 0.9}.items():
        # 1e-6 is what the smallest gradient adds; the rest is a rounding in each operation.
        torch.testing.assert_close(kept[method], torch.full((16,), left), rtol=1e-6, atol=0)


def test_the_rules_of_an_embedding_are_compared_and_the_comparison_goes_on(
    word_embedding: ModuleType, words: Any, tmp_path: Path
) -> None:
    reports: list[Any] = []
    experiment = word_embedding.Experiment(
        words, tmp_path, width=16, batch=4, steps=2, report=lambda t, _: reports.append(t)
    )
    methods = (next(iter(word_embedding.BETAS)), word_embedding.FROZEN)
    found = experiment.results(methods, seeds=(1,))
    assert [trial.method for trial in found] == list(methods)

    tried = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    losses = {word_embedding.Trial(**each["trial"]): each["run"]["loss"] for each in tried}
    assert set(reports) == set(losses)
    for trial, (run,) in found.items():
        assert run.loss == losses[replace(trial, seed=1)]
        for first, second in ((run.after_rare, run.after_frequent), (run.of_rare, run.of_frequent)):
            assert min(first, second) < run.loss < max(first, second)
        for name in ("rate", "embedding_rate"):
            own = getattr(trial, name)
            if own is not None:
                for factor in (0.5, 2):
                    assert losses[trial] <= losses[replace(trial, **{name: factor * own})]

    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert experiment.results(methods, seeds=(1,)) == found
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written
    best = next(iter(found))
    assert replace(experiment, steps=1).run(best).loss != losses[best]
    assert word_embedding.table(found).row_count == 2

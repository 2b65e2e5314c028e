"""A comparison of rules for the rows of an embedding whose words a batch does not contain.

A network learns to predict the next word of a text. Its vocabulary has thousands of words and a batch contains a few
hundred of them, so most rows have a gradient of zero in most steps. The methods differ only in the embedding, which has
its own learning rate.

- "at rest": the row does not move, and its momentum decays. This is the rule of `mm.SteepestDescent`.
- "noise damped": the same with `noise_damping`, which shortens the steps of noisy rows.
- "momentum kept": the row does not move, and its momentum does not change, as in `torch.optim.SparseAdam`.
- "every row moves": the row moves along its momentum, at full length, and its momentum decays.
- "AdamW": `torch.optim.AdamW` steps the embedding, without weight decay.
- "frozen": the embedding keeps its initial values, as a baseline.

    python examples/word_embedding.py FILE

FILE is any text in UTF-8. The network is an embedding and a head, or a GPT with --depth 2. Finished runs are stored under --out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Final

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm
from modular_manifolds.models.rms_linear import rms_linear
from modular_manifolds.training.text import Windows

WORD: Final = re.compile(r"\w+(?:'\w+)*|[^\w\s]|\n")
"""A word, a punctuation mark or the end of a line."""
UNKNOWN: Final = 0
"""The token of words outside the vocabulary."""
RARE_BELOW_COUNT: Final = 10
"""A word is rare if it occurs fewer times in the training part."""
AT_REST: Final = "at rest"
DAMPED: Final = "noise damped"
KEPT: Final = "momentum kept"
MOVING: Final = "every row moves"
FROZEN: Final = "frozen"
BETAS: Final = {"AdamW, β₂ = 0.95": (0.9, 0.95), "AdamW, β₂ = 0.999": (0.9, 0.999)}
METHODS: Final = (AT_REST, DAMPED, KEPT, MOVING, *BETAS, FROZEN)

MOMENTUM: Final = 0.9
START: Final = 0.5
START_EMBEDDING: Final = 0.2
"""The first rates that are tried, for the network and for its embedding."""


@dataclass(frozen=True, eq=False)
class Words:
    """A text as tokens, with its last tenth held out; `counts` are the frequencies of tokens in the training part."""

    train: Windows
    test: Windows
    counts: Tensor


@dataclass(frozen=True)
class Trial:
    """A method, its learning rates, and the seed of all that is drawn.

    `embedding_rate` is AdamW's learning rate, or the rms of a row's step in steepest descent. If it is None, the
    budget splits `rate` over the embedding and the other weights.
    """

    method: str
    rate: float
    embedding_rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """Held-out losses of a finished trial in nats a word, and the rms of the embedding's rows.

    `after_rare` and `after_frequent` are losses of the word behind a rare or a frequent one, whose row the network
    has just read. `of_rare` and `of_frequent` are losses of the rare and the frequent words themselves. `row_rms` is
    the smallest, mean and largest root mean square of a row.
    """

    loss: float
    after_rare: float
    after_frequent: float
    of_rare: float
    of_frequent: float
    row_rms: list[float]


def read_words(path: Path, *, vocabulary: int, context: int = 32) -> Words:
    """The words of a text in lower case; the vocabulary is the most frequent ones and one unknown word."""
    words = WORD.findall(path.read_text(encoding="utf-8").lower())
    held_out = len(words) // 10
    common = Counter(words[:-held_out]).most_common(vocabulary - 1)
    tokens = {word: token for token, (word, _) in enumerate(common, start=UNKNOWN + 1)}
    text = torch.tensor([tokens.get(word, UNKNOWN) for word in words])
    train, test = text[:-held_out], text[-held_out:]
    counts = train.bincount(minlength=len(tokens) + 1)
    return Words(Windows(train, context), Windows(test, context), counts)


def network(vocabulary: int, width: int, depth: int) -> mm.Module:
    """A GPT, or at depth 0 an embedding and a head, which see the last word only."""
    if depth > 0:
        return mm.models.GPT(vocabulary, width=width, depth=depth)
    rows = mm.Embedding(vocabulary, width, manifold=mm.Euclidean())
    return mm.Series(embedding=rows, head=2.0 * rms_linear(width, vocabulary))


def optimisers(net: mm.Module, trial: Trial) -> list[torch.optim.Optimizer]:
    """Steepest descent, with AdamW for the embedding in the AdamW methods."""
    steepest = mm.SteepestDescent(net, trial.rate, momentum=MOMENTUM, nesterov=True)
    # No other weight has the embedding's geometry, so the group is its own.
    (group,) = (g for g in steepest.param_groups if g["param_names"] == ["embedding.weight"])
    group["noise_damping"] = trial.method == DAMPED
    if trial.method in (*BETAS, FROZEN):
        group["shares"] = [0.0]
    elif trial.embedding_rate is not None:
        group["shares"] = [trial.embedding_rate / trial.rate]
    if trial.method not in BETAS:
        return [steepest]
    assert trial.embedding_rate is not None
    adamw = torch.optim.AdamW(
        group["params"], trial.embedding_rate, betas=BETAS[trial.method], weight_decay=0.0
    )
    return [steepest, adamw]


def prepare_absent_rows_(method: str, weight: Tensor, momentum: Tensor) -> None:
    """Change momentum or gradient of the rows without a gradient, so that the next step treats them by `method`."""
    assert weight.grad is not None
    absent = (weight.grad == 0).all(dim=1)
    if method == KEPT:
        # The step multiplies by MOMENTUM again.
        momentum[absent] /= MOMENTUM
    elif method == MOVING:
        # So small that the momentum decays as without it. The optimiser sees a row that has a gradient.
        weight.grad[absent] = 1e-6 * momentum[absent]


@dataclass(frozen=True)
class Experiment:
    """Trials of one network on one text, each kept as a JSON file in `out`, so that an interrupted experiment goes on."""

    words: Words
    out: Path
    width: int = 64
    depth: int = 0
    batch: int = 16
    steps: int = 400
    report: Callable[[Trial, Run], None] | None = None

    def train(self, trial: Trial) -> Run:
        """Train the network, the rates falling linearly to zero, and measure it on the held-out part."""
        torch.manual_seed(trial.seed)
        net = network(len(self.words.counts), self.width, self.depth)
        weight, windows = net.get_parameter("embedding.weight"), self.words.train
        steppers = optimisers(net, trial)
        schedules = [LambdaLR(each, lambda step: 1 - step / self.steps) for each in steppers]
        for _ in range(self.steps):
            starts = torch.randint(len(windows.tokens) - windows.context, (self.batch,))
            inputs, labels = windows.take(starts)
            functional.cross_entropy(net(inputs).flatten(0, 1), labels.flatten()).backward()
            prepare_absent_rows_(trial.method, weight, steppers[0].state[weight]["momentum"])
            for stepper, schedule in zip(steppers, schedules, strict=True):
                stepper.step()
                schedule.step()
            net.zero_grad()
        return measured(net, self.words)

    def run(self, trial: Trial) -> Run:
        """The trial's result from the disk; if it is missing, the network is trained first."""
        settings = [self.width, self.depth, self.batch, self.steps, *asdict(trial).values()]
        text = torch.cat([self.words.train.tokens, self.words.test.tokens]).tolist()
        key = hashlib.sha256(json.dumps([settings, text]).encode()).hexdigest()[:16]
        file = self.out / f"{key}.json"
        if not file.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            found = {"trial": asdict(trial), "run": asdict(self.train(trial))}
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(found), encoding="utf-8")
            temporary.replace(file)
        run = Run(**json.loads(file.read_text(encoding="utf-8"))["run"])
        if self.report is not None:
            self.report(trial, run)
        return run

    def tuned(self, method: str) -> Trial:
        """The method's best trial with seed 0: both rates are searched on grids of factors of 2, in turn, until neither changes."""
        if method == FROZEN:
            return self.bracketed(Trial(method, START), "rate")
        best, before = Trial(method, START, START_EMBEDDING), None
        while best != before:
            before = best
            best = self.bracketed(self.bracketed(best, "embedding_rate"), "rate")
        return best

    def bracketed(self, start: Trial, name: str) -> Trial:
        """The best trial with the rate `name` times a power of two; both its neighbours have been tried."""
        losses = {start: self.run(start).loss}
        while True:
            best = min(losses, key=lambda trial: losses[trial])
            rates = (getattr(best, name) / 2, getattr(best, name) * 2)
            untried = [trial for r in rates if (trial := replace(best, **{name: r})) not in losses]
            if not untried:
                return best
            losses[untried[0]] = self.run(untried[0]).loss

    def results(
        self, methods: Iterable[str] = METHODS, seeds: Iterable[int] = (1, 2, 3)
    ) -> dict[Trial, list[Run]]:
        """Each method's tuned trial, and its runs with seeds that were not used for tuning."""
        best = [self.tuned(method) for method in methods]
        runs: dict[Trial, list[Run]] = {trial: [] for trial in best}
        for seed in seeds:
            for trial in best:
                runs[trial].append(self.run(replace(trial, seed=seed)))
        return runs


@torch.no_grad()
def measured(net: mm.Module, words: Words) -> Run:
    """The losses of a trained network, each a mean over words of the held-out part, and its rows."""
    values: list[Tensor] = []
    read: list[Tensor] = []
    predicted: list[Tensor] = []
    for inputs, labels in words.test.batches(32):
        logits = net(inputs).flatten(0, 1)
        values.append(functional.cross_entropy(logits, labels.flatten(), reduction="none"))
        read.append(inputs.flatten())
        predicted.append(labels.flatten())
    loss = torch.cat(values).double()
    rare = words.counts < RARE_BELOW_COUNT
    rare[UNKNOWN] = False
    after, of = rare[torch.cat(read)], rare[torch.cat(predicted)]
    rms = net.get_parameter("embedding.weight").square().mean(dim=1).sqrt()
    return Run(
        loss=float(loss.mean()),
        after_rare=float(loss[after].mean()),
        after_frequent=float(loss[~after].mean()),
        of_rare=float(loss[of].mean()),
        of_frequent=float(loss[~of].mean()),
        row_rms=[float(each) for each in (rms.min(), rms.mean(), rms.max())],
    )


def table(results: dict[Trial, list[Run]]) -> Table:
    """Means over seeds, a row a method; in brackets the smallest and the largest."""
    parts = ("after rare", "after frequent", "of rare", "of frequent")
    shown = Table("embedding", "rate", "its rate", "loss", *parts, "rms of rows")
    for trial, runs in results.items():
        loss = [run.loss for run in runs]
        means = [mean(getattr(run, part.replace(" ", "_")) for run in runs) for part in parts]
        smallest, average, largest = (mean(run.row_rms[i] for run in runs) for i in range(3))
        shown.add_row(
            trial.method,
            f"{trial.rate:g}",
            "" if trial.embedding_rate is None else f"{trial.embedding_rate:g}",
            f"{mean(loss):.3f} ({min(loss):.3f} to {max(loss):.3f})",
            *(f"{each:.3f}" for each in means),
            f"{average:.2f} ({smallest:.2f} to {largest:.2f})",
        )
    return shown


def main(
    path: Annotated[Path, typer.Argument(help="A text in UTF-8.")],
    out: Annotated[Path, typer.Option(help="The folder of finished runs.")] = Path(
        "runs/word-embedding"
    ),
    vocabulary: Annotated[int, typer.Option(help="How many tokens, the unknown included.")] = 5000,
    depth: Annotated[int, typer.Option(help="Of the GPT; 0 for an embedding and a head.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds, beside the one for tuning.")] = 3,
) -> None:
    """Tune and train every method, and print the table."""
    console = Console()
    experiment = Experiment(
        read_words(path, vocabulary=vocabulary),
        out,
        depth=depth,
        report=lambda trial, run: console.print(f"{trial}: {run.loss:.3f}"),
    )
    console.print(table(experiment.results(seeds=range(1, seeds + 1))))


if __name__ == "__main__":
    typer.run(main)

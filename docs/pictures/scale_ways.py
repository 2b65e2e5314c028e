"""The milliseconds of an optimiser step by the number of ranks, computed from stated inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from look import BLUE, GREEN, GREY, INK, ORANGE, paper, save
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from modular_manifolds_scale import Model

RANKS: Final = tuple(2**power for power in range(11))
LINES: Final = {
    "DDP, replicate": (ORANGE, "--"),
    "DDP, owner": (ORANGE, "-"),
    "FSDP2, rows": (BLUE, "--"),
    "FSDP2, owner": (BLUE, "-"),
    "FSDP2, Muon": (GREEN, "-"),
    "FSDP2, AdamW": (GREEN, ":"),
}


def draw(path: Path) -> None:
    from modular_manifolds_scale import MODELS, build_model

    figure = paper(5.2, 8.6)
    axes = figure.subplots(3, 1, sharex=True)
    models = [build_model(name) for name in MODELS]
    for ax, model in zip(axes, models, strict=True):
        _lines(ax, model)
    axes[-1].set_xlabel("ranks")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=10)
    figure.subplots_adjust(left=0.14, right=0.97, top=0.965, bottom=0.175, hspace=0.16)
    save(figure, path, description=_description(models))


def _lines(ax: Axes, model: Model) -> None:
    from modular_manifolds_scale import WAYS
    from modular_manifolds_scale.tables import MACHINE, TOKENS

    for way, (color, style) in LINES.items():
        times = [1e3 * WAYS[way](model, MACHINE, ranks).seconds.total for ranks in RANKS]
        ax.plot(RANKS, times, style, color=color, lw=1.6, label=way)
    both = 1e3 * model.operations(TOKENS) / MACHINE.rate("bfloat16")
    ax.axhline(both, color=GREY, lw=1.2, ls="-.", label="forward and backward")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(RANKS[::2], [f"{each}" for each in RANKS[::2]])
    ax.set_ylabel("ms a step")
    ax.set_title(model.name, fontsize=10, color=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _description(models: list[Model]) -> str:
    from modular_manifolds_scale import WAYS
    from modular_manifolds_scale.tables import MACHINE, amount

    words: list[str] = []
    for model in models:
        ends = []
        for way in LINES:
            first, last = (
                amount(1e3 * WAYS[way](model, MACHINE, ranks).seconds.total)
                for ranks in (RANKS[0], RANKS[-1])
            )
            ends.append(f"{way} {first} to {last}")
        words.append(f"{model.name}: {'; '.join(ends)}")
    return f"Computed milliseconds of a step on 1 and on 1,024 ranks. {'. '.join(words)}."

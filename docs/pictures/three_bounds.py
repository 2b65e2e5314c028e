"""Certified, expected and measured: what a step does to the outputs, and how steep the network is."""

from __future__ import annotations

from pathlib import Path

import torch
from look import GREEN, GREY, INK, ORANGE, PALE, paper, save
from torch.func import functional_call, jvp
from torch.nn import functional

import modular_manifolds as mm

RATE, STEPS = 0.2, 60


def network() -> mm.Module:
    """The spheres allow weights of slope 2, and Amplify a slope that inputs hardly meet."""
    sphere = mm.Sphere(radius=2.0)
    return (
        mm.Linear(16, 32, manifold=sphere)
        >> mm.ReLU()
        >> mm.Linear(32, 32)
        >> mm.Amplify(1.5)
        >> mm.Linear(32, 4, manifold=sphere)
    )


def trained(net: mm.Module) -> list[tuple[float, float, float]]:
    """Certified, expected and measured change of the outputs in every step of a short training."""
    inputs = functional.normalize(torch.randn(256, 16), dim=-1)
    labels = inputs[:, :4].argmax(dim=1)
    opt = mm.SteepestDescent(net, lr=RATE, momentum=0.9)
    falls = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.0, total_iters=STEPS)
    changes: list[tuple[float, float, float]] = []
    for _ in range(STEPS):
        before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        opt.zero_grad()
        functional.cross_entropy(8 * net(inputs), labels).backward()
        rate = opt.param_groups[0]["lr"]
        opt.step()
        update = {name: weight.detach() - before[name] for name, weight in net.named_parameters()}
        _, moved = jvp(lambda w: functional_call(net, w, (inputs,)), (before,), (update,))
        budget = mm.budget(net, lr=rate)
        changes.append((budget.first_order * rate, rate, float(moved.norm(dim=-1).max())))
        falls.step()
    return changes


def draw(path: Path) -> None:
    torch.manual_seed(0)
    net = network()
    changes = trained(net)
    report = mm.lipschitz(net, input_norm="l2", output_norm="l2")

    figure = paper(5.0, 5.9)
    step = figure.add_axes((0.13, 0.545, 0.84, 0.40))
    corner = {"ha": "right", "va": "top"}
    certified, expected, measured = zip(*changes, strict=True)
    step.plot(certified, color=INK, lw=2.5)
    step.plot(expected, color=ORANGE, lw=2.5, ls="--")
    step.plot(measured, color=GREEN, lw=2.5)
    step.set_yscale("log")
    step.set_title("How far one step moves the outputs", fontsize=13, color=INK, loc="left")
    step.set_xlabel("training step", fontsize=12, color=INK)
    for line, (word, colour) in enumerate(
        (
            ("certified: at most this", INK),
            ("expected: the learning rate", ORANGE),
            ("measured", GREEN),
        )
    ):
        height = 0.97 - 0.11 * line
        step.text(0.99, height, word, fontsize=12, color=colour, **corner, transform=step.transAxes)
    step.set_ylim(measured[-8] * 0.7, certified[0] * 2.2)
    step.set_xlim(0, STEPS - 4)

    slope = figure.add_axes((0.13, 0.095, 0.84, 0.28))
    bars = (
        ("declared, for all weights allowed", report.declared, PALE, INK),
        ("certified, for today's weights", report.certified, INK, "white"),
        ("measured", report.empirical, GREEN, "white"),
    )
    for y, (word, value, colour, letters) in enumerate(reversed(bars)):
        slope.barh(y, value, height=0.78, color=colour)
        wide = value > 0.75 * report.declared
        slope.text(
            0.15 if wide else value + 0.15,
            y,
            f"{word}: {value:.3g}",
            fontsize=12,
            va="center",
            color=letters if wide else INK,
        )
    slope.set_title("How steep the network is", fontsize=13, color=INK, loc="left")
    slope.set_yticks([])
    slope.set_xlabel("Lipschitz constant", fontsize=12, color=INK)
    for axes in (step, slope):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(labelsize=11, colors=INK)
    save(figure, path, description="change by a step and slope: certified, expected, measured")

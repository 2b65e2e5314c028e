"""A step on the circle, the Stiefel manifold of 2 × 1 matrices: gradient, steepest direction, retraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from look import BLUE, GREEN, GREY, INK, ORANGE, PALE, paper, save

import modular_manifolds as mm

LENGTH = 0.75


def draw(path: Path) -> None:
    manifold, norm = mm.Stiefel(), mm.Spectral()
    angle = torch.tensor(1.95)
    point = torch.stack((angle.cos(), angle.sin()))
    gradient = torch.tensor([-0.62, -0.52])
    direction = mm.steepest(manifold, norm, point.unsqueeze(1), gradient.unsqueeze(1)).direction
    step = LENGTH * direction
    landed = manifold.retract(point.unsqueeze(1), step).squeeze(1).numpy()
    w, g, a = point.numpy(), gradient.numpy(), step.squeeze(1).numpy()

    figure = paper(5.0, 3.4)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    turn = np.linspace(0.1, np.pi - 0.1, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, lw=2.5)
    along = a / np.linalg.norm(a)
    line = np.stack((w - 0.55 * along, w + a))
    axes.plot(*line.T, color=PALE, lw=1.5, zorder=0)

    def arrow(start: np.ndarray, end: np.ndarray, colour: str, style: str = "-") -> None:
        look = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "lw": 2.2}
        axes.annotate(
            "",
            xy=tuple(end),
            xytext=tuple(start),
            arrowprops={**look, "color": colour, "ls": style, "shrinkA": 0, "shrinkB": 0},
        )

    arrow(w, w - g, ORANGE)
    axes.plot(*np.stack((w - g, w + along * float(along @ -g))).T, color=ORANGE, lw=1, ls=":")
    arrow(w, w + a, BLUE)
    arrow(w + a, landed, GREEN, "--")
    for spot in (w, landed):
        axes.plot(*spot, "o", color=INK, ms=8, zorder=5)

    def say(spot: np.ndarray, text: str, colour: str, **where: str) -> None:
        axes.text(float(spot[0]), float(spot[1]), text, color=colour, fontsize=13, **where)

    say(w + np.array([0.02, -0.1]), "weight W", INK, ha="center", va="top")
    say(w - g + np.array([0.05, 0.03]), "−G, downhill", ORANGE, ha="left", va="bottom")
    say(w + a + np.array([0.06, 0.03]), "step η A, tangent", BLUE, ha="left", va="center")
    say(landed + np.array([-0.02, -0.1]), "next W", INK, ha="center", va="top")
    say((w + a + landed) / 2 + np.array([0.1, -0.03]), "retract", GREEN, ha="left", va="center")
    say(np.array([0.0, 0.4]), "the manifold:\nall W of length 1", GREY, ha="center", va="center")
    axes.set(xlim=(-1.1, 1.2), ylim=(0.05, 1.63), aspect="equal")
    save(figure, path, description="a step on the circle: gradient, tangent step, retraction")

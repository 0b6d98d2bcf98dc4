"""Plots a score: the optimiser's curve, and where the model meets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nst.train.evaluation.score import ImageLosses, Score
from nst.train.run.plot import COLORS, INK, label_logarithmic, save_figure

BLUE, RED = COLORS["content"], COLORS["style"]


def plot_score(score: Score, name: str, path: Path) -> None:
    """Plot total loss against iterations, and style loss against content loss, as a PNG.

    Args:
        name: name of the model, for the legend.

    Raises:
        NstError: `path` can't be written.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curve(left, score, name)
    _trade(right, score, name)
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        label_logarithmic(axis)
    right.margins(x=0.14)
    figure.suptitle(f"{name}: {score.words()}", color=INK, fontsize=12)
    save_figure(figure, path)


def _curve(axes: Axes, score: Score, name: str) -> None:
    iterations = np.array(list(score.curve()))
    totals = np.array(
        [[x.total_loss for x in p.curve.losses[: len(iterations)]] for p in score.photographs]
    )
    shown = iterations > 0  # 0 has no logarithm
    x, best = iterations[shown], np.minimum.accumulate(totals, axis=1)[:, shown] / 1e3
    axes.fill_between(
        x, best.min(0), best.max(0), color=BLUE, alpha=0.12, linewidth=0, label="all photographs"
    )
    axes.plot(x, best.mean(0), color=BLUE, linewidth=2, label="optimiser, mean")
    loss = score.losses.total_loss / 1e3
    axes.axhline(loss, color=RED, linewidth=1.5, label=f"{name}, mean")
    marks = [max(p.equivalent_iterations, x[0]) for p in score.photographs]
    losses = [p.losses.total_loss / 1e3 for p in score.photographs]
    axes.scatter(
        marks, losses, s=14, color=RED, alpha=0.6, linewidth=0, label=f"{name}, each photograph"
    )
    axes.axhline(
        score.before.total_loss / 1e3, color=INK, linewidth=1, linestyle=":", label="untouched"
    )
    axes.set(xscale="log", yscale="log", xlabel="iterations", ylabel="total loss, thousands")
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _trade(axes: Axes, score: Score, name: str) -> None:
    curve = score.curve()
    content = [x.content_loss / 1e3 for x in curve.values()]
    style = [x.style_loss / 1e3 for x in curve.values()]
    axes.plot(content, style, color=BLUE, linewidth=2, marker="o", markersize=3)

    def label(text: str, losses: ImageLosses, offset: int, size: int, color: str) -> None:
        place = losses.content_loss / 1e3, losses.style_loss / 1e3
        away = (offset, offset)
        axes.annotate(text, place, away, textcoords="offset points", fontsize=size, color=color)

    for iteration in (0, 5, 10, 25, 50, 100, 200):
        if iteration in curve:
            label(str(iteration), curve[iteration], 5, 8, BLUE)
    losses = score.losses
    axes.scatter(losses.content_loss / 1e3, losses.style_loss / 1e3, color=RED, s=40, zorder=3)
    label(name, losses, 7, 9, RED)
    axes.set(yscale="log", xlabel="content loss, thousands", ylabel="style loss, thousands")
    axes.set_title("the optimiser's path, by iterations", fontsize=9, color=INK)

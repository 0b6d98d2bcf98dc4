"""Measure whether the default weights fit any style: networks and the optimiser on many styles.

    python docs/bench/styles.py train STYLE.jpg PHOTOGRAPHS --out DIR [--style-weight 5]
        [--steps 1300] [--batch-size 8] [--width 32] [--teacher TEACHER]
    python docs/bench/styles.py table DIR

`train` trains one network of the architecture of `quality`, repaints the photographs with it and
with the optimiser, and writes DIR/STYLE-MODE.json and two strips of images.

`table` prints a Markdown table of all results in DIR, and stacks the strips: DIR/kodak-MODE.jpg,
and DIR/held-out-MODE.jpg of the photographs that come with scikit-image. *Content* is the content
loss divided by that between two photographs, *style* the mean relative error of the Gram matrices,
|G - A|² / |A|²; both are 0 at best and about 1 at worst.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import numpy as np

import nst
from nst.config import ObjectiveConfig
from nst.io.images import load_style, resize_image
from nst.io.sample_images import held_out, load_photographs, training_photographs
from nst.models.config import PRESETS, TransformerConfig
from nst.perceptual.gatys import BatchProgress, optimize_batch
from nst.perceptual.losses import build_objective
from nst.system.devices import pick_device
from nst.train.evaluation.score import (
    MILESTONES,
    Curve,
    ImageLosses,
    image_losses,
    mean_losses,
    squares,
)

ITERATIONS = 100
SHOWN = 4  # photographs in a strip


def train(args: argparse.Namespace) -> None:
    """Train on one style, compare with the optimiser, and write the results."""
    mode = "measured" if args.style_weight is None else "fixed"
    PRESETS["tried"] = TransformerConfig(width=args.width)
    config = nst.TrainConfig(
        style=(args.style,),
        out=args.out / f"{args.style.stem}-{mode}",
        steps=args.steps,
        objective=ObjectiveConfig(style_weight=args.style_weight),
        preset="tried",
        teacher=args.teacher,
        teacher_weight=args.teacher_weight,
        teacher_images=args.teacher_images,
        content=args.content_folder,
        batch_size=args.batch_size,
        seed=args.seed,
        score=False,
    )
    if args.name:
        mode = args.name
        config = nst.TrainConfig(**{**vars(config), "out": args.out / f"{args.style.stem}-{mode}"})
    result = nst.train_style(config, notice=print)
    device = pick_device("auto")
    style = load_style(args.style)
    own = build_objective([style], (), config.objective, device)
    judge = build_objective([style], (), ObjectiveConfig(), device)
    energy = sum(
        weight * float(judge.style_losses[layer].target.square().mean())
        for layer, weight in judge.layer_weights.items()
    )
    seen = squares(training_photographs())
    pairs = [image_losses(judge, a, b).content_loss for a, b in itertools.combinations(seen, 2)]
    photographs = squares(load_photographs([args.photographs])[0])
    found: list[tuple[int, list[ImageLosses]]] = [
        (0, [image_losses(own, p, p) for p in photographs])
    ]

    def measure(progress: BatchProgress) -> None:
        if progress.step in MILESTONES:
            found.append((progress.step, [ImageLosses(x, 0, 0) for x in progress.total_losses]))

    painted = optimize_batch(photographs, own, ITERATIONS, measure, at_once=len(photographs))
    steps = tuple(step for step, _ in found)
    curves = [
        Curve(steps, tuple(losses[i] for _, losses in found)) for i in range(len(photographs))
    ]
    with nst.Stylizer(result.model, provider="cpu") as stylizer:
        stylized = [stylizer(p) for p in photographs]
    worth = [
        curve.equivalent_iterations(image_losses(own, p, image).total_loss)[0]
        for curve, p, image in zip(curves, photographs, stylized, strict=True)
    ]
    row = {
        "style": args.style.stem,
        "mode": mode,
        "steps": result.steps,
        "seconds": result.seconds,
        "waiting": result.waiting,
        "equivalent_iterations": statistics.fmean(worth),
        "spread": statistics.pstdev(worth),
        "weights": own.layer_weights,
    }
    for name, images in (("network", stylized), ("optimizer", painted)):
        losses = mean_losses(
            [image_losses(judge, p, image) for p, image in zip(photographs, images, strict=True)]
        )
        total = mean_losses(
            [image_losses(own, p, image) for p, image in zip(photographs, images, strict=True)]
        )
        row[name] = {
            "content": losses.content_loss / statistics.fmean(pairs),
            "style": losses.style_loss / energy,
            "own": total.to_dict(),
        }
    (args.out / f"{args.style.stem}-{mode}.json").write_text(json.dumps(row))
    thumbnail = resize_image(style, (256, 256))
    every = len(photographs) // SHOWN
    strip = [thumbnail, *stylized[::every][:SHOWN], *painted[::every][:SHOWN]]
    nst.save_image(args.out / f"{args.style.stem}-{mode}-kodak.png", np.hstack(strip))
    shown = squares(held_out())
    with nst.Stylizer(result.model, provider="cpu") as stylizer:
        strip = [stylizer(p) for p in shown]
    strip += optimize_batch(shown, own, ITERATIONS)
    nst.save_image(args.out / f"{args.style.stem}-{mode}-held-out.png", np.hstack(strip))


def table(args: argparse.Namespace) -> None:
    """Print the table of all results in a folder, and stack their strips."""
    rows = [json.loads(path.read_text()) for path in sorted(args.out.glob("*-*.json"))]
    for mode in sorted({row["mode"] for row in rows}):
        chosen = [row for row in rows if row["mode"] == mode]
        print(f"\n{mode}, {chosen[0]['steps']} steps\n")
        print("| style | content | style | content / optimiser's | style / optimiser's | worth |")
        print("|---|---:|---:|---:|---:|---:|")
        columns = []
        for row in chosen:
            network, optimizer = row["network"], row["optimizer"]
            values = [
                network["content"],
                network["style"],
                network["content"] / optimizer["content"],
                network["style"] / optimizer["style"],
                row["equivalent_iterations"],
            ]
            columns.append(values)
            cells = [f"{v:.3g}" for v in values[:-1]]
            cells.append(f"{row['equivalent_iterations']:.1f} ± {row['spread']:.1f}")
            print(f"| {row['style']} | {' | '.join(cells)} |")
        logs = np.log(np.array(columns))
        print("| geometric mean | " + " | ".join(f"{v:.3g}" for v in np.exp(logs.mean(0))) + " |")
        print("| spread, × or ÷ | " + " | ".join(f"{v:.2f}" for v in np.exp(logs.std(0))) + " |")
        ratios = np.exp(logs.max(0) - logs.min(0))
        print("| largest over smallest | " + " | ".join(f"{v:.1f}" for v in ratios) + " |")
        for sheet in ("kodak", "held-out"):
            paths = [args.out / f"{row['style']}-{mode}-{sheet}.png" for row in chosen]
            strips = [nst.load_image(path) for path in paths]
            nst.save_image(args.out / f"{sheet}-{mode}.jpg", np.vstack(strips), quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train")
    one.add_argument("style", type=Path)
    one.add_argument("photographs", type=Path)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--style-weight", type=float)
    one.add_argument("--steps", type=int, default=1300)
    one.add_argument("--teacher")
    one.add_argument("--teacher-weight", type=float, default=1.0)
    one.add_argument("--teacher-images", type=int, default=64)
    one.add_argument("--content-folder", type=Path)
    one.add_argument("--batch-size", type=int)
    one.add_argument("--width", type=int, default=32, help="channels of the first convolution")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--name", default="")
    one.set_defaults(run=train)
    all_ = commands.add_parser("table")
    all_.add_argument("out", type=Path)
    all_.set_defaults(run=table)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

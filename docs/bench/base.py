"""Make the base network of a preset, from which `nst-train` starts every style.

    python docs/bench/base.py STYLES [--content PHOTOGRAPHS] [--preset balanced] [--variants 8]
        [--rounds 60] [--without wave starry_night …] [--out models/base/balanced.safetensors]
        [--style-size 384] [--style-strength 1]

STYLES is a folder of paintings. Each gets variants: parts of it, turned, with its colours exchanged
or inverted. `--without` leaves out the paintings on which the base network is to be tested.

Prints the seconds and the mean loss every ten rounds, and writes the network to `--out`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nst.config import ObjectiveConfig
from nst.io.images import image_names, load_style
from nst.models.config import preset_config
from nst.train.content.dataset import open_content
from nst.train.engine.base_network import FOLDER, ROUND, train_base, varied
from nst.train.run.checkpoint import save_checkpoint

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("styles", type=Path)
    parser.add_argument("--content", type=Path)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.8e-3)
    parser.add_argument("--style-size", type=int, default=ObjectiveConfig().style_size)
    parser.add_argument("--style-strength", type=float, default=1.0)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    names = [n for n in sorted(image_names(args.styles)) if Path(n).stem not in args.without]
    if not names:
        parser.error(f"{args.styles} holds no style image, or none is left")
    paintings = [load_style(args.styles / name) for name in names]
    styles = [*paintings, *(varied(p, rng) for p in paintings for _ in range(args.variants))]
    config = ObjectiveConfig(style_size=args.style_size, style_strength=args.style_strength)
    start = time.monotonic()

    losses = deque[float](maxlen=len(styles))

    def report(rounds: int, loss: float) -> None:
        losses.append(loss)
        if rounds % 10 == 0 or rounds == args.rounds:
            mean = sum(losses) / len(losses)
            print(f"{rounds} rounds, {time.monotonic() - start:.0f} s, {mean:.3g}", flush=True)

    network = train_base(
        args.preset,
        styles,
        open_content(args.content, args.seed, args.size + 2 * preset_config(args.preset).context),
        rounds=args.rounds,
        batch_size=args.batch_size,
        side=args.size,
        learning_rate=args.lr,
        seed=args.seed,
        config=config,
        callback=report,
    )
    about = {
        "made_from": json.dumps([Path(name).stem for name in names]),
        "content": args.content.name if args.content else "built-in",
        "objective": json.dumps(asdict(config)),
        "variants": str(args.variants),
        "rounds": f"{args.rounds} of {ROUND} steps",
        "batch_size": str(args.batch_size),
    }
    # Half precision is enough for a start.
    save_checkpoint(args.out or FOLDER / f"{args.preset}.safetensors", network.half(), about)

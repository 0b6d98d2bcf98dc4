"""Measure how good the presets are after a given time, from process start to file.

    python docs/bench/presets.py STYLE.jpg … --content PHOTOGRAPHS --out DIR [--wall 60]
        [--presets balanced fast quality] [--batch-size 16] [--at-once 3]

Trains each preset on the first style with nothing else running, for the time that is left after
what a short run needs besides training. The other styles get as many steps, several runs at once,
which uses a GPU better. Then `nst score` repaints the photographs.

Prints a Markdown table: time (of the first style), steps, total loss in thousands, and how many
iterations of the optimiser each model is worth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any


def nst(*arguments: object) -> str:
    """Run the `nst` command and return its output; exit with its error."""
    command = [sys.executable, "-m", "nst", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def train(
    style: Path, preset: str, out: Path, batch_size: int, **budget: float
) -> tuple[float, dict[str, Any]]:
    """Train; return the seconds from the process's start to its end, and the run's result."""
    begun = time.monotonic()
    ((name, value),) = budget.items()
    nst(
        *("train", "--style", style, "--preset", preset, "--out", out, f"--{name}", value),
        *("--batch-size", batch_size, "--no-score", "--samples", 2),
    )
    return time.monotonic() - begun, json.loads((out / "result.json").read_text())


def score(style: Path, content: Path, folder: Path) -> str:
    """Score a run's model; return two cells of the table."""
    output = nst(
        *("score", folder / f"{style.stem}.onnx", "--style", style, "--content", content),
        *("--iterations", 200, "--json"),
    )
    found = json.loads(output)
    loss = found["losses"]["total_loss"] / 1000
    return f"{loss:.1f} | {found['equivalent_iterations']:.1f} ± {found['spread']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("styles", type=Path, nargs="+")
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wall", type=float, default=60)
    parser.add_argument("--presets", nargs="+", default=["balanced", "fast", "quality"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=3)
    args = parser.parse_args()
    first, *others = args.styles
    run = partial(train, batch_size=args.batch_size)

    wall, result = run(first, args.presets[0], args.out / "warm-up", seconds=args.wall / 15)
    besides = wall - result["seconds"]
    print("| style | preset | from start to file, s | steps | loss | worth |")
    print("|---|---|---:|---:|---:|---:|")
    rows = {}
    for preset in args.presets:
        out = args.out / f"{first.stem}-{preset}"
        wall, result = run(first, preset, out, seconds=round(args.wall - besides, 1))
        rows[first, preset] = f"{wall:.1f} | {result['steps']}"
    jobs = [(style, preset) for style in others for preset in args.presets]
    with ThreadPoolExecutor(args.at_once) as pool:
        made = pool.map(
            lambda job: run(
                *job,
                args.out / f"{job[0].stem}-{job[1]}",
                steps=int(rows[first, job[1]].split()[-1]),
            ),
            jobs,
        )
        for job, (_, result) in zip(jobs, made, strict=True):
            rows[job] = f"as many steps | {result['steps']}"
    for (style, preset), row in rows.items():
        scored = score(style, args.content, args.out / f"{style.stem}-{preset}")
        print(f"| {style.stem} | {preset} | {row} | {scored} |", flush=True)


if __name__ == "__main__":
    main()

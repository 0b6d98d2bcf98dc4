"""Measure how near each method of colour transfer comes to the reference, and how long it takes.

    python docs/bench/color.py PHOTOGRAPHS PAINTINGS [--pairs 5] [--side 768] [--megapixels 12]

Recolours pairs of a photograph and a painting, both ways; the pairs are spread evenly over each
folder, in the order of the names. Then times each method on the first photograph, enlarged to so
many megapixels, with noise of two levels, which makes as many colours as a camera does.

Prints a Markdown table of means over pairs, directions and channels: the Kullback–Leibler
divergence, with one added to every bin's count and without (where it is finite, and how often it is
not), the Wasserstein distance, and the ranks of the methods; then each method's seconds, the median
of three runs after one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from nst.color.compare import compare_methods, kl_divergence, wasserstein
from nst.color.transfer import METHODS
from nst.io.images import Array, image_files, load_image, resize_image, resize_long


def spread(folder: Path, count: int) -> list[Path]:
    """Return `count` of a folder's images, spread evenly."""
    paths = image_files(folder)
    return [paths[i * len(paths) // count] for i in range(count)]


def rank(values: list[float]) -> list[int]:
    """Return the rank of each value; 1 for the smallest."""
    return [1 + sum(other < value for other in values) for value in values]


def seconds(method: str, image: Array, reference: Array) -> float:
    """Return the median time of three runs after one."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        METHODS[method](image, reference)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("paintings", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--side", type=int, default=768, help="long side, pixels")
    parser.add_argument("--megapixels", type=float, default=12)
    args = parser.parse_args()

    folders = (args.photographs, args.paintings)
    paths = list(zip(*(spread(folder, args.pairs) for folder in folders), strict=True))
    found: dict[str, list[tuple[float, ...]]] = {}
    for pair in paths:
        images = [resize_long(load_image(path), args.side) for path in pair]
        print(" ↔ ".join(path.stem for path in pair), flush=True)
        for image, reference in (images, images[::-1]):
            rows, pictures = compare_methods(image, reference)
            for row in rows:
                picture = pictures[row.method]
                finite = [value for value in row.kl if np.isfinite(value)]
                found.setdefault(row.method, []).append(
                    (
                        kl_divergence(picture, reference, smoothing=1).mean(),
                        float(np.mean(finite)) if finite else np.nan,
                        3 - len(finite),
                        wasserstein(picture, reference).mean(),
                    )
                )
    means = {name: np.nanmean(values, 0) for name, values in found.items()}
    ranks = {
        column: dict(zip(means, rank([m[column] for m in means.values()]), strict=True))
        for column in (0, 3)
    }
    print("\n| method | KL, bins + 1 | rank | KL where finite | infinite | W1 | rank |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, (smoothed, finite_kl, _, moved) in means.items():
        infinite = sum(int(values[2]) for values in found[name])
        of = 3 * len(found[name])
        print(
            f"| {name} | {smoothed:.3f} | {ranks[0][name]} | {finite_kl:.3f} | "
            f"{infinite} of {of} | {moved:.2f} | {ranks[3][name]} |"
        )

    height = round((args.megapixels * 1e6 * 3 / 4) ** 0.5)
    photograph, painting = (load_image(path) for path in paths[0])
    enlarged = resize_image(photograph, (height, round(height * 4 / 3)))
    noise = np.random.default_rng(0).normal(0, 2, enlarged.shape)
    large = np.clip(np.rint(enlarged + noise), 0, 255).astype(np.uint8)
    print(f"\n{large.shape[1]}×{large.shape[0]} in the colours of {paths[0][1].stem}, seconds")
    for name in METHODS:
        print(f"| {name} | {seconds(name, large, painting):.2f} |", flush=True)

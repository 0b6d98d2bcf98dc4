"""Compare models by eye, blind: sheets of pairs in random order, and the count of the verdicts.

    python docs/bench/blind.py sheets PAIRS.json PHOTOGRAPHS --out DIR [--each 8] [--seed 0]
    python docs/bench/blind.py tally DIR/key.json VERDICTS.csv …
    python docs/bench/blind.py page PAIRS.json PHOTOGRAPHS NAME … --out PAGE.jpg

PAIRS.json is a list of {"question", "style", "a", "b"}: a name, the style image, and two models or
folders of finished pictures (PHOTOGRAPH.png). `sheets` writes DIR/001.png … and DIR/key.json. A
sheet shows the style image and the photograph above the two pictures, left and right at random;
judges see the sheets alone. `--each` photographs are drawn for each pair, and the border of 8
pixels is cut off, because the Kodak photographs have dark edges.

VERDICTS.csv has the columns sheet, choice (left, right or equal), margin (clear or slight) and why.
`tally` prints a Markdown table: for each question, how many of the verdicts prefer `a`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import (
    Array,
    center_square,
    image_names,
    load_image,
    load_style,
    resize_short,
    save_image,
)

EDGE = 8  # pixels that are cut off every photograph
GAP = 16
TILE = 400  # side of a tile on a page
TOP = 300  # height of the style image and the photograph on a sheet


def without_edges(folder: Path) -> dict[str, Array]:
    """Load photographs and cut their border off: name -> HWC uint8 RGB."""
    return {
        Path(name).stem: np.ascontiguousarray(load_image(folder / name)[EDGE:-EDGE, EDGE:-EDGE])
        for name in sorted(image_names(folder))
    }


def paint(source: Path, photographs: dict[str, Array]) -> dict[str, Array]:
    """Repaint photographs with a model, or read the finished pictures of a folder."""
    if source.is_dir():
        return {name: load_image(source / f"{name}.png") for name in photographs}
    with Stylizer(source) as stylizer:
        return {name: stylizer(image) for name, image in photographs.items()}


def sheet(style: Array, photograph: Array, left: Array, right: Array) -> Array:
    """Draw a sheet, HWC uint8 RGB."""
    height, width = left.shape[:2]
    page = np.full((TOP + height + 3 * GAP, 2 * width + 3 * GAP, 3), 255, np.uint8)
    x = GAP
    for image in (resize_short(style, TOP), resize_short(photograph, TOP)):
        image = image[:TOP, : page.shape[1] - x - GAP]
        page[GAP : GAP + image.shape[0], x : x + image.shape[1]] = image
        x += image.shape[1] + GAP
    for index, image in enumerate((left, right)):
        x = GAP + index * (width + GAP)
        page[2 * GAP + TOP : 2 * GAP + TOP + height, x : x + width] = image
    return page


def make_sheets(args: argparse.Namespace) -> None:
    """Write the sheets and the key."""
    rng = np.random.default_rng(args.seed)
    photographs = without_edges(args.photographs)
    pages: list[tuple[dict[str, Any], Array]] = []
    for pair in json.loads(args.pairs.read_text()):
        style = load_style(pair["style"])
        drawn = sorted(rng.choice(sorted(photographs), args.each, replace=False))
        chosen = {name: photographs[name] for name in drawn}
        a, b = (paint(Path(pair[key]), chosen) for key in ("a", "b"))
        for name in drawn:
            a_is_left = bool(rng.random() < 0.5)
            left, right = (a[name], b[name]) if a_is_left else (b[name], a[name])
            about = {"question": pair["question"], "style": Path(pair["style"]).stem}
            about |= {"photograph": name, "a": "left" if a_is_left else "right"}
            pages.append((about, sheet(style, chosen[name], left, right)))
    args.out.mkdir(parents=True, exist_ok=True)
    key = {}
    for number, index in enumerate(rng.permutation(len(pages)), start=1):
        about, page = pages[index]
        key[f"{number:03d}"] = about
        save_image(args.out / f"{number:03d}.png", page)
    (args.out / "key.json").write_text(json.dumps(key, indent=1) + "\n")
    print(f"{len(key)} sheets in {args.out}")


def make_page(args: argparse.Namespace) -> None:
    """Draw a row for each pair: style, photograph, b, a. The names take turns."""
    photographs = without_edges(args.photographs)
    rows = []
    for number, pair in enumerate(json.loads(args.pairs.read_text())):
        name = args.names[number % len(args.names)]
        photograph = photographs[name]
        painted = [paint(Path(pair[side]), {name: photograph})[name] for side in "ba"]
        tiles = [center_square(x, TILE) for x in (load_style(pair["style"]), photograph, *painted)]
        rows.append(np.hstack([np.pad(x, ((0, 4), (0, 4), (0, 0))) for x in tiles]))
    save_image(args.out, np.vstack(rows))


def tally(args: argparse.Namespace) -> None:
    """Print the table of the verdicts."""
    key = json.loads(args.key.read_text())
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for path in args.verdicts:
        for row in csv.DictReader(path.read_text().splitlines()):
            about = key[row["sheet"].zfill(3)]
            choice = row["choice"].strip().lower()
            won = "equal" if choice == "equal" else "a" if choice == about["a"] else "b"
            for style in (about["style"], "all"):
                counts[about["question"], style][won] += 1
                if won != "equal" and row["margin"].strip().lower() == "clear":
                    counts[about["question"], style][f"{won}, clear"] += 1
    print("| question | style | verdicts | prefer a | of these clear | prefer b | clear | equal |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for (question, style), c in sorted(counts.items()):
        n = c["a"] + c["b"] + c["equal"]
        share = f"{c['a']} ({c['a'] / n:.0%})"
        cells = (question, style, n, share, c["a, clear"], c["b"], c["b, clear"], c["equal"])
        print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("pairs", type=Path)
    sheets.add_argument("photographs", type=Path)
    sheets.add_argument("--out", type=Path, required=True)
    sheets.add_argument("--each", type=int, default=8)
    sheets.add_argument("--seed", type=int, default=0)
    sheets.set_defaults(run=make_sheets)
    page = commands.add_parser("page")
    page.add_argument("pairs", type=Path)
    page.add_argument("photographs", type=Path)
    page.add_argument("names", nargs="+")
    page.add_argument("--out", type=Path, required=True)
    page.set_defaults(run=make_page)
    counted = commands.add_parser("tally")
    counted.add_argument("key", type=Path)
    counted.add_argument("verdicts", type=Path, nargs="+")
    counted.set_defaults(run=tally)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

"""Measure how often numbers predict which of two pictures eyes prefer.

    python docs/bench/agreement.py PHOTOGRAPHS PAIRS.json key.json VERDICTS.csv …
        [--more PAIRS.json key.json VERDICTS.csv … ]

PAIRS.json and key.json are those of `docs/bench/blind.py sheets`. Repaints the photographs of the
sheets that have a verdict, measures both pictures, and prints, for each number, the share of
verdicts, and of clear ones, that it predicts. The last row adds the numbers up, each divided by
its deviation, with weights by logistic regression; it is fitted on all sheets of other styles and
asked about those of one style, style by style.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
from blind import paint, without_edges
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from nst.io.images import Array, load_style
from nst.train.evaluation.look import look

LOWER_IS_BETTER = {"color_distance", "grain"}


def differences(
    photographs: dict[str, Array], pairs: Path, key: Path, verdicts: list[Path]
) -> list[tuple[str, bool, dict[str, float]]]:
    """Return for each verdict its style, whether it is clear, and how far the winner is ahead."""
    sheets = json.loads(key.read_text())
    models = {
        (pair["question"], Path(pair["style"]).stem): pair for pair in json.loads(pairs.read_text())
    }
    rows = [row for path in verdicts for row in csv.DictReader(path.read_text().splitlines())]
    needed = defaultdict[tuple[str, str], set[str]](set)  # photographs for each model and style
    for row in rows:
        about = sheets[row["sheet"].zfill(3)]
        pair = models[about["question"], about["style"]]
        for side in "ab":
            needed[pair[side], pair["style"]].add(about["photograph"])
    looks = {}
    for (model, path), names in needed.items():
        style = load_style(path)
        for name, image in paint(Path(model), {n: photographs[n] for n in sorted(names)}).items():
            looks[model, name] = asdict(look(image, photographs[name], [style]))
    found = []
    for row in rows:
        about = sheets[row["sheet"].zfill(3)]
        pair = models[about["question"], about["style"]]
        choice = row["choice"].strip().lower()
        if choice == "equal":
            continue
        measured = {side: looks[pair[side], about["photograph"]] for side in "ab"}
        won, lost = ("a", "b") if choice == about["a"] else ("b", "a")
        ahead = {
            n: (measured[won][n] - measured[lost][n]) * (-1 if n in LOWER_IS_BETTER else 1)
            for n in measured["a"]
        }
        found.append((about["style"], row["margin"].strip().lower() == "clear", ahead))
    return found


def together(ahead: NDArray[np.float64], styles: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Predict the verdicts on each style from those on the others."""
    predicted = np.zeros(len(ahead), bool)
    scaled = ahead / ahead.std(0)
    for style in np.unique(styles):
        test = styles == style
        # Each pair the right way round and the other way round.
        both = np.concatenate([scaled[~test], -scaled[~test]])
        won = np.repeat([1, 0], (~test).sum())
        model = LogisticRegression(fit_intercept=False).fit(both, won)
        predicted[test] = model.decision_function(scaled[test]) > 0
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("first", type=Path, nargs="+")
    parser.add_argument("--more", type=Path, nargs="+", action="append", default=[])
    args = parser.parse_args()
    photographs = without_edges(args.photographs)
    rows = []
    for pairs, key, *verdicts in (args.first, *args.more):
        rows += differences(photographs, pairs, key, verdicts)
    styles = np.array([style for style, _, _ in rows])
    clear = np.array([is_clear for _, is_clear, _ in rows])
    names = list(rows[0][2])
    ahead = np.array([[row[n] for n in names] for _, _, row in rows])
    right = {name: ahead[:, i] > 0 for i, name in enumerate(names)}
    right["all of them"] = together(ahead, styles)
    print(f"{len(rows)} verdicts, {clear.sum()} of them clear\n")
    print("| number | predicts | of the clear ones |\n|---|---:|---:|")
    for name, hits in right.items():
        print(f"| {name} | {hits.mean():.0%} | {hits[clear].mean():.0%} |")


if __name__ == "__main__":
    main()

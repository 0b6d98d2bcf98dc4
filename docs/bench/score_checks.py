"""Check `nst score`: score unchanged photographs and the optimiser's own images as if by a model.

    python docs/bench/score_checks.py --style STYLE.jpg --content PHOTOGRAPHS [--iterations 50 45]

Prints how many iterations each is worth. It should be 0 for unchanged photographs, and for the
optimiser's images the number of iterations that made them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nst
from nst.io.images import Array, load_style
from nst.io.sample_images import load_photographs
from nst.perceptual.losses import build_objective
from nst.system.devices import pick_device
from nst.train.evaluation.score import score, squares

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--style", type=Path, required=True)
parser.add_argument("--content", type=Path, required=True)
parser.add_argument("--iterations", type=int, nargs="+", default=[50])
arguments = parser.parse_args()

device = pick_device("auto")
styles = [load_style(arguments.style)]
photographs, _ = load_photographs([arguments.content])
objective = build_objective(styles, (), nst.ObjectiveConfig(), device)

result = score(lambda image: image, photographs, styles, objective)
print(f"identity: {result.words()}")
for iterations in arguments.iterations:
    config = nst.OptimizeConfig(iterations=iterations, sizes=(), device=device.type)
    images: dict[bytes, Array] = {
        photograph.tobytes(): nst.optimize(photograph, styles, config, objective=objective)
        for photograph in squares(photographs)
    }

    def optimized(image: Array, images: dict[bytes, Array] = images) -> Array:
        return images[image.tobytes()]

    result = score(optimized, photographs, styles, objective)
    found = f"{result.equivalent_iterations:.2f} ± {result.spread:.2f}"
    print(f"{iterations} iterations of the optimiser: {found}")

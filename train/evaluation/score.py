"""Scores a model by its losses, and by the iterations that the optimiser needs to reach them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from nst.config import ObjectiveConfig, check_number, check_weights
from nst.errors import UsageError
from nst.io.cache import content_hash, read_cached, write_cached
from nst.io.images import Array, center_square, resize_short
from nst.perceptual.gatys import BatchProgress, optimize_batch
from nst.perceptual.losses import PerceptualLoss
from nst.perceptual.tensors import to_tensor
from nst.train.evaluation.look import Look, look, mean_look

EVALUATION_SIDE = 256  # side of the centre squares of photographs that are scored
ITERATIONS = 100
# Iterations at which the optimiser's curve is measured; between them it is interpolated.
MILESTONES = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 30, 35, 42, 50, 60, 70, 85),
    *(100, 120, 140, 170, 200, 250, 300, 350, 420, 500, 600, 700, 850, 1000),
)
_CURVE_VERSION = "1"  # must change with every change of the optimiser that changes its curve

Stylize = Callable[[Array], Array]


@dataclass(frozen=True)
class ImageLosses:
    """Weighted losses of a uint8 image, or the mean losses of several."""

    content_loss: float
    style_loss: float
    tv_loss: float

    @property
    def total_loss(self) -> float:
        return self.content_loss + self.style_loss + self.tv_loss

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "total_loss": self.total_loss}


@dataclass(frozen=True)
class Curve:
    """The optimiser's losses on one photograph.

    Attributes:
        iterations: milestones, from 0, which is the photograph itself.
        losses: losses of the uint8 image after each milestone.
    """

    iterations: tuple[int, ...]
    losses: tuple[ImageLosses, ...]

    def equivalent_iterations(self, total_loss: float) -> tuple[float, bool]:
        """Return after how many iterations the optimiser reaches `total_loss`.

        The best loss so far is interpolated between milestones, in the logarithms of loss and
        iterations (between 0 and 1, in the logarithm of the loss alone).

        Returns:
            The iterations, and whether the curve ends before (they are then its last ones).
        """
        best, before = math.inf, 0
        for iteration, losses in zip(self.iterations, self.losses, strict=True):
            now = losses.total_loss
            if now <= total_loss:
                if best == math.inf:
                    return 0.0, False  # no better than the photograph itself
                share = math.log(best / total_loss) / math.log(best / now) if now < best else 1.0
                if before == 0:
                    return share * iteration, False
                return before * (iteration / before) ** share, False
            if now < best:
                best, before = now, iteration
        return float(self.iterations[-1]), True


@dataclass(frozen=True)
class PhotographScore:
    """The score of a model on one photograph.

    Attributes:
        losses: losses of the stylized photograph.
        equivalent_iterations: iterations of the optimiser that reach the same total loss.
        beyond: whether the model is better than the whole curve; `equivalent_iterations` is then a
            lower bound.
        curve: the optimiser's curve.
        look: the look of the stylized photograph.
        look_before: that of the photograph itself.
    """

    losses: ImageLosses
    equivalent_iterations: float
    beyond: bool
    curve: Curve
    look: Look
    look_before: Look


@dataclass(frozen=True)
class Score:
    """The score of a model on several photographs.

    Attributes:
        photographs: the score on each photograph.
        objective: the objective that was measured.
    """

    photographs: tuple[PhotographScore, ...]
    objective: ObjectiveConfig

    @property
    def equivalent_iterations(self) -> float:
        """Return the mean of `PhotographScore.equivalent_iterations` over the photographs."""
        return statistics.fmean(p.equivalent_iterations for p in self.photographs)

    @property
    def spread(self) -> float:
        """Return the standard deviation of `equivalent_iterations` over photographs; 0 for one."""
        return statistics.pstdev(p.equivalent_iterations for p in self.photographs)

    @property
    def beyond(self) -> int:
        """Return on how many photographs the model is better than the whole curve."""
        return sum(photograph.beyond for photograph in self.photographs)

    @property
    def losses(self) -> ImageLosses:
        """Return the mean losses of the stylized photographs."""
        return mean_losses([photograph.losses for photograph in self.photographs])

    @property
    def before(self) -> ImageLosses:
        """Return the mean losses of the photographs themselves."""
        return mean_losses([photograph.curve.losses[0] for photograph in self.photographs])

    @property
    def look(self) -> Look:
        """Return the mean look of the stylized photographs."""
        return mean_look([photograph.look for photograph in self.photographs])

    @property
    def look_before(self) -> Look:
        """Return the mean look of the photographs themselves."""
        return mean_look([photograph.look_before for photograph in self.photographs])

    def curve(self) -> dict[int, ImageLosses]:
        """Return the optimiser's mean losses at the milestones that all photographs have."""
        shortest = min(len(photograph.curve.iterations) for photograph in self.photographs)
        return {
            iteration: mean_losses([p.curve.losses[index] for p in self.photographs])
            for index, iteration in enumerate(self.photographs[0].curve.iterations[:shortest])
        }

    def words(self) -> str:
        """Summarise the score, as `worth 27 ± 4 iterations of the optimiser`."""
        more = "at least " if self.beyond else ""
        mean = self.equivalent_iterations
        digits = 0 if mean >= 10 else 1
        numbers = f"{mean:.{digits}f} ± {self.spread:.{digits}f}"
        return f"worth {more}{numbers} iterations of the optimiser"

    def to_dict(self) -> dict[str, Any]:
        return {
            "equivalent_iterations": self.equivalent_iterations,
            "spread": self.spread,
            "beyond": self.beyond,
            "losses": self.losses.to_dict(),
            "before": self.before.to_dict(),
            "look": asdict(self.look),
            "look_before": asdict(self.look_before),
            "curve": {str(k): losses.to_dict() for k, losses in self.curve().items()},
            "photographs": [
                {
                    "equivalent_iterations": p.equivalent_iterations,
                    "beyond": p.beyond,
                    **p.losses.to_dict(),
                    "look": asdict(p.look),
                }
                for p in self.photographs
            ],
            "objective": asdict(self.objective),
        }


@dataclass(frozen=True)
class ScoreProgress:
    """Progress of a score.

    Attributes:
        photograph, photographs: number of the first photograph at work, from 1, and of all.
        iteration, iterations: iterations of the optimiser on it so far, and in all.
        at_once: number of photographs at work together.
    """

    photograph: int
    photographs: int
    iteration: int
    iterations: int
    at_once: int = 1

    @property
    def done(self) -> float:
        """Return the share of the work that is done, 0 to 1."""
        done = self.photograph - 1 + self.at_once * self.iteration / self.iterations
        return done / self.photographs


def score(
    stylize: Stylize,
    photographs: Sequence[Array],
    styles: Sequence[Array],
    objective: PerceptualLoss,
    *,
    style_weights: Sequence[float] = (),
    iterations: int = ITERATIONS,
    whole_curve: bool = True,
    callback: Callable[[ScoreProgress], None] | None = None,
) -> Score:
    """Measure a model against the optimiser of Gatys et al. under the same objective.

    On a GPU, the optimiser repaints many photographs at once.

    Args:
        stylize: the model as a function, HWC uint8 RGB to the same; a `Stylizer` is one.
        photographs: HWC uint8 RGB; their centre squares are scored at 256 × 256 pixels.
        styles: style images, HWC uint8 RGB, from which `objective` was built.
        objective: the objective of the training.
        style_weights: shares of the style images in `objective`.
        iterations: iterations of the optimiser; its curve ends at the last of `MILESTONES` that
            they reach.
        whole_curve: False stops the optimiser once it has overtaken the model on all photographs
            at work.
        callback: called with the progress.

    Raises:
        UsageError: there are no photographs, or the iterations are out of range.
    """
    if not photographs:
        raise UsageError("there are no photographs to score on")
    check_number("iterations", iterations, least=1, most=MILESTONES[-1])
    photographs = squares(photographs)
    count = len(photographs)

    def report(before: int, at_once: int, iteration: int) -> None:
        if callback is not None:
            callback(ScoreProgress(before + 1, count, iteration, iterations, at_once))

    report(0, 1, 0)
    images = [stylize(photo) for photo in photographs]
    losses = [
        image_losses(objective, photo, image)
        for photo, image in zip(photographs, images, strict=True)
    ]
    goals = [0.0 if whole_curve else x.total_loss for x in losses]
    named = objective_key(styles, style_weights, objective)
    keys = [_curve_key(photo, named) for photo in photographs]
    curves = _optimizer_curves(photographs, objective, iterations, goals, keys, report)
    results = [
        PhotographScore(
            x,
            *curve.equivalent_iterations(x.total_loss),
            curve,
            look(image, photo, styles),
            look(photo, photo, styles),
        )
        for x, curve, image, photo in zip(losses, curves, images, photographs, strict=True)
    ]
    return Score(tuple(results), objective.config)


def squares(photographs: Sequence[Array]) -> list[Array]:
    """Cut out the centre squares on which models are scored, HWC uint8 RGB."""
    return [center_square(photograph, EVALUATION_SIDE) for photograph in photographs]


def image_losses(objective: PerceptualLoss, photograph: Array, image: Array) -> ImageLosses:
    """Compute the losses of a stylized `image` of `photograph`, both HWC uint8 RGB of one size."""
    return _batch_losses(objective, [photograph], [image])[0]


@torch.no_grad()
def _batch_losses(
    objective: PerceptualLoss, photographs: Sequence[Array], images: Sequence[Array]
) -> list[ImageLosses]:
    device = objective.vgg.mean.device
    targets = objective.content_features(torch.cat([*map(to_tensor, photographs)]).to(device))
    losses = objective(torch.cat([*map(to_tensor, images)]).to(device), targets)
    terms = torch.stack([losses.content_loss, losses.style_loss, losses.tv_loss], 1)
    return [ImageLosses(*values) for values in terms.tolist()]


def mean_losses(losses: Sequence[ImageLosses]) -> ImageLosses:
    """Average losses term by term."""
    terms = np.array([[x.content_loss, x.style_loss, x.tv_loss] for x in losses])
    return ImageLosses(*terms.mean(0).tolist())


def trained_objective(
    metadata: Mapping[str, str],
) -> tuple[ObjectiveConfig, tuple[float, ...]]:
    """Read the objective and the style weights from a model's metadata; default to ours."""
    try:
        config = json.loads(metadata["config"])
        values = config["objective"]
        layers = {key: tuple(values[key]) for key in ("content_layers", "style_layers")}
        # Models of version 0.2.0 and before name no style loss: theirs were Gram matrices.
        given = {"style_loss": "gram", **values, **layers}
        return ObjectiveConfig(**given), tuple(config["style_weights"])
    except (KeyError, TypeError, ValueError):  # made by another program or version
        return ObjectiveConfig(), ()


def _optimizer_curves(
    photographs: Sequence[Array],
    objective: PerceptualLoss,
    iterations: int,
    goals: Sequence[float],
    keys: Sequence[str],
    report: Callable[[int, int, int], None],
) -> list[Curve]:
    """Measure the optimiser's curves up to `iterations`, or until all at work reach their goals.

    Args:
        goals: total loss for each photograph.
        keys: names of the cached curves.
        report: called with how many photographs are done, how many are at work, and the iteration.
    """
    last = max(milestone for milestone in MILESTONES if milestone <= iterations)
    curves = [_read_curve(key, last) for key in keys]
    found: list[dict[int, ImageLosses]] = [{} for _ in keys]

    def reached(index: int, losses: Iterable[ImageLosses]) -> bool:
        return min(x.total_loss for x in losses) <= goals[index]

    missing = [
        index
        for index, curve in enumerate(curves)
        if curve is None or not (curve.iterations[-1] == last or reached(index, curve.losses))
    ]

    def measure(at_work: Sequence[int], iteration: int, images: Sequence[Array]) -> None:
        contents = [photographs[index] for index in at_work]
        measured = _batch_losses(objective, contents, images)
        for index, losses in zip(at_work, measured, strict=True):
            found[index][iteration] = losses

    def follow(progress: BatchProgress) -> bool:
        at_work = missing[progress.first : progress.first + len(progress.total_losses)]
        report(len(keys) - len(missing) + progress.first, len(at_work), progress.step)
        if progress.step not in MILESTONES:
            return False
        if progress.step == 1:  # perhaps a second time, in a smaller batch
            for index in at_work:
                found[index].clear()
            measure(at_work, 0, [photographs[index] for index in at_work])
        measure(at_work, progress.step, progress.images())
        ended = progress.step == last or all(reached(i, found[i].values()) for i in at_work)
        if ended:
            for index in at_work:
                curves[index] = _keep_curve(keys[index], found[index])
        return ended

    if missing:
        optimize_batch([photographs[index] for index in missing], objective, last, follow)
    return [curve for curve in curves if curve is not None]


def _keep_curve(key: str, found: Mapping[int, ImageLosses]) -> Curve:
    losses = [[x.content_loss, x.style_loss, x.tv_loss] for x in found.values()]
    write_cached("curves", key, {"iterations": [*found], "losses": losses})
    return Curve(tuple(found), tuple(found.values()))


def _read_curve(key: str, last: int) -> Curve | None:
    """Read the cached curve up to iteration `last`."""
    cached = read_cached("curves", key)
    if cached is None:
        return None
    try:
        pairs = zip(cached["iterations"], cached["losses"], strict=True)
        kept = [(int(k), ImageLosses(*map(float, losses))) for k, losses in pairs if k <= last]
        milestones, found = zip(*kept, strict=True)
    except (KeyError, TypeError, ValueError):  # the file is damaged
        return None
    return Curve(milestones, found)


def objective_key(
    styles: Sequence[Array], style_weights: Sequence[float], objective: PerceptualLoss
) -> str:
    """Return a name of the objective for cached files."""
    config = objective.config
    # The name of a file does not tell its contents.
    vgg = [] if config.vgg in ("caffe", "torchvision") else objective.vgg.parameters()
    weights = [tensor.detach().cpu().numpy() for tensor in vgg]
    seen = [resize_short(style, config.style_size) for style in styles]
    shares = check_weights("style weights", style_weights, len(styles))
    layers = {name: f"{weight:.3g}" for name, weight in objective.layer_weights.items()}
    return content_hash(*seen, *weights, json.dumps([asdict(config), shares, layers]))


def _curve_key(photograph: Array, objective: str) -> str:
    """Hash all that a curve depends on: pixels, objective, and the optimiser's version."""
    return content_hash(photograph, objective, _CURVE_VERSION)

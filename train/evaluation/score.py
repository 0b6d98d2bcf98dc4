"""How good is a model: its losses on photographs, and the iterations of Gatys that it is worth."""

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

EVALUATION_SIDE = 256  # photographs are judged as middle squares of this side
ITERATIONS = 100
# Where the optimiser's curve is measured; between these it is interpolated.
MILESTONES = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 30, 35, 42, 50, 60, 70, 85),
    *(100, 120, 140, 170, 200, 250, 300, 350, 420, 500, 600, 700, 850, 1000),
)
_CURVE_VERSION = "1"  # a new one for every change of the optimiser that moves its curve

Stylize = Callable[[Array], Array]


@dataclass(frozen=True)
class ImageLosses:
    """Weighted losses of uint8 images, of one or as a mean over several."""

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
    """The optimiser's losses on one photograph, of the uint8 image after each milestone.

    Attributes:
        iterations: milestones, from 0, which is the photograph itself.
        losses: one for each.
    """

    iterations: tuple[int, ...]
    losses: tuple[ImageLosses, ...]

    def equivalent_iterations(self, total_loss: float) -> tuple[float, bool]:
        """The iterations after which the optimiser reaches `total_loss`.

        Interpolated between milestones in the logarithms of loss and iterations (between 0 and 1,
        in the loss's alone), on the best loss so far.

        Returns:
            The iterations, and whether the curve ends before (they are then its last).
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
    """A model on one photograph.

    Attributes:
        losses: of the repainted photograph.
        equivalent_iterations: iterations of the optimiser that reach the same total loss.
        beyond: whether the model is better than the whole curve; `equivalent_iterations` is then the least.
        curve: the optimiser's.
    """

    losses: ImageLosses
    equivalent_iterations: float
    beyond: bool
    curve: Curve


@dataclass(frozen=True)
class Score:
    """A model on photographs.

    Attributes:
        photographs: one by one.
        objective: what was measured.
    """

    photographs: tuple[PhotographScore, ...]
    objective: ObjectiveConfig

    @property
    def equivalent_iterations(self) -> float:
        """Iterations of the optimiser that the model is worth, mean over the photographs."""
        return statistics.fmean(photograph.equivalent_iterations for photograph in self.photographs)

    @property
    def spread(self) -> float:
        """Standard deviation of `equivalent_iterations` over the photographs; 0 for one."""
        return statistics.pstdev(
            photograph.equivalent_iterations for photograph in self.photographs
        )

    @property
    def beyond(self) -> int:
        """On how many photographs the model is better than the whole curve."""
        return sum(photograph.beyond for photograph in self.photographs)

    @property
    def losses(self) -> ImageLosses:
        """Of the repainted photographs, mean."""
        return mean_losses([photograph.losses for photograph in self.photographs])

    @property
    def before(self) -> ImageLosses:
        """Of the photographs as they are, mean."""
        return mean_losses([photograph.curve.losses[0] for photograph in self.photographs])

    def curve(self) -> dict[int, ImageLosses]:
        """The optimiser's mean losses at the milestones that every photograph has."""
        shortest = min(len(photograph.curve.iterations) for photograph in self.photographs)
        return {
            iteration: mean_losses([p.curve.losses[index] for p in self.photographs])
            for index, iteration in enumerate(self.photographs[0].curve.iterations[:shortest])
        }

    def words(self) -> str:
        """The answer in a few words, as `worth 27 ± 4 iterations of the optimiser`."""
        more = "at least " if self.beyond else ""
        digits = 0 if self.equivalent_iterations >= 10 else 1
        return (
            f"worth {more}{self.equivalent_iterations:.{digits}f} ± {self.spread:.{digits}f} iterations "
            "of the optimiser"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "equivalent_iterations": self.equivalent_iterations,
            "spread": self.spread,
            "beyond": self.beyond,
            "losses": self.losses.to_dict(),
            "before": self.before.to_dict(),
            "curve": {str(k): losses.to_dict() for k, losses in self.curve().items()},
            "photographs": [
                {
                    "equivalent_iterations": p.equivalent_iterations,
                    "beyond": p.beyond,
                    **p.losses.to_dict(),
                }
                for p in self.photographs
            ],
            "objective": asdict(self.objective),
        }


@dataclass(frozen=True)
class ScoreProgress:
    """Where a score stands.

    Attributes:
        photograph, photographs: the first one at work, from 1, of how many.
        iteration, iterations: of the optimiser on it.
        at_once: photographs that are at work together.
    """

    photograph: int
    photographs: int
    iteration: int
    iterations: int
    at_once: int = 1

    @property
    def done(self) -> float:
        """Share of the work, 0 to 1."""
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
        stylize: the model: HWC uint8 RGB to the same; a `Stylizer` is one.
        photographs: HWC uint8 RGB; their middle squares are judged, at 256 × 256 pixels.
        styles, style_weights: what `objective` was built from; they name the cached curves.
        iterations: of the optimiser; its curve ends at the last of `MILESTONES` up to there.
        whole_curve: False stops the optimiser where it has overtaken the model on all photographs
            at work.

    Raises:
        UsageError: no photographs, or no iterations.
    """
    if not photographs:
        raise UsageError("there are no photographs to judge by")
    check_number("iterations", iterations, least=1, most=MILESTONES[-1])
    photographs = squares(photographs)
    count = len(photographs)

    def report(before: int, at_once: int, iteration: int) -> None:
        if callback is not None:
            callback(ScoreProgress(before + 1, count, iteration, iterations, at_once))

    report(0, 1, 0)
    losses = [image_losses(objective, photo, stylize(photo)) for photo in photographs]
    goals = [0.0 if whole_curve else x.total_loss for x in losses]
    named = objective_key(styles, style_weights, objective)
    keys = [_curve_key(photo, named) for photo in photographs]
    curves = _optimizer_curves(photographs, objective, iterations, goals, keys, report)
    results = [
        PhotographScore(x, *curve.equivalent_iterations(x.total_loss), curve)
        for x, curve in zip(losses, curves, strict=True)
    ]
    return Score(tuple(results), objective.config)


def squares(photographs: Sequence[Array]) -> list[Array]:
    """The middle squares by which models are judged."""
    return [center_square(photograph, EVALUATION_SIDE) for photograph in photographs]


def image_losses(objective: PerceptualLoss, photograph: Array, image: Array) -> ImageLosses:
    """The objective of a repainted `image` of `photograph`, both HWC uint8 RGB of one size."""
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
    """The mean, term by term."""
    terms = np.array([[x.content_loss, x.style_loss, x.tv_loss] for x in losses])
    return ImageLosses(*terms.mean(0).tolist())


def trained_objective(
    metadata: Mapping[str, str],
) -> tuple[ObjectiveConfig, tuple[float, ...]]:
    """The objective and the style weights that a model's metadata name; our defaults otherwise."""
    try:
        config = json.loads(metadata["config"])
        values = config["objective"]
        layers = {key: tuple(values[key]) for key in ("content_layers", "style_layers")}
        return ObjectiveConfig(**{**values, **layers}), tuple(config["style_weights"])
    except (KeyError, TypeError, ValueError):  # another maker, or another version
        return ObjectiveConfig(), ()


def _optimizer_curves(
    photographs: Sequence[Array],
    objective: PerceptualLoss,
    iterations: int,
    goals: Sequence[float],
    keys: Sequence[str],
    report: Callable[[int, int, int], None],
) -> list[Curve]:
    """The optimiser's curves to `iterations`, or to where all at work are at or below their goals.

    Args:
        keys: of the cached curves.
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
    """The cached curve up to iteration `last`."""
    cached = read_cached("curves", key)
    if cached is None:
        return None
    try:
        pairs = zip(cached["iterations"], cached["losses"], strict=True)
        kept = [(int(k), ImageLosses(*map(float, losses))) for k, losses in pairs if k <= last]
        milestones, found = zip(*kept, strict=True)
    except (KeyError, TypeError, ValueError):  # a damaged one
        return None
    return Curve(milestones, found)


def objective_key(
    styles: Sequence[Array], style_weights: Sequence[float], objective: PerceptualLoss
) -> str:
    """A name for the objective, for what is kept on disk."""
    config = objective.config
    # A file's name says nothing of what is in it.
    vgg = [] if config.vgg in ("caffe", "torchvision") else objective.vgg.parameters()
    weights = [tensor.detach().cpu().numpy() for tensor in vgg]
    seen = [resize_short(style, config.style_size) for style in styles]
    shares = check_weights("style weights", style_weights, len(styles))
    layers = {name: f"{weight:.3g}" for name, weight in objective.layer_weights.items()}
    return content_hash(*seen, *weights, json.dumps([asdict(config), shares, layers]))


def _curve_key(photograph: Array, objective: str) -> str:
    """What a curve depends on: pixels, objective, and the optimiser's version."""
    return content_hash(photograph, objective, _CURVE_VERSION)

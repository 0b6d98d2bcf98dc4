"""What a model is worth: against curves made by hand, and against the optimiser itself."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nst.config import ObjectiveConfig, OptimizeConfig
from nst.errors import UsageError
from nst.io import cache
from nst.io.images import Array, load_image
from nst.perceptual import gatys
from nst.perceptual.gatys import optimize, optimize_batch
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.train.evaluation import score as scoring
from nst.train.evaluation.look import Look
from nst.train.evaluation.score import (
    Curve,
    ImageLosses,
    Score,
    ScoreProgress,
    image_losses,
    score,
    squares,
    trained_objective,
)

CONFIG = ObjectiveConfig(
    content_layers=("relu2_2",), style_layers=("relu1_2", "relu2_2"), style_size=64
)


@pytest.fixture(scope="module")
def style(style_path: Path) -> Array:
    return load_image(style_path)


@pytest.fixture(scope="module")
def objective(style: Array) -> PerceptualLoss:
    return build_objective([style], (), CONFIG, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scoring, "EVALUATION_SIDE", 64)
    monkeypatch.setenv("NST_CACHE", str(tmp_path / "cache"))


def curve(*totals: float) -> Curve:
    milestones = scoring.MILESTONES[: len(totals)]
    return Curve(milestones, tuple(ImageLosses(0, total, 0) for total in totals))


def test_between_milestones_the_logarithms_are_straight() -> None:
    made = curve(1000, 100, 10, 9, 8, 7, 6, 5, 4)  # the last is 8 iterations
    assert made.equivalent_iterations(1000) == (0, False)
    assert made.equivalent_iterations(2000) == (0, False)
    assert made.equivalent_iterations(100) == (1, False)
    assert made.equivalent_iterations(math.sqrt(1000 * 100))[0] == pytest.approx(0.5)
    assert made.equivalent_iterations(math.sqrt(100 * 10))[0] == pytest.approx(math.sqrt(2))
    assert made.equivalent_iterations(4)[0] == pytest.approx(8)
    assert made.equivalent_iterations(3.9) == (8, True)


def test_a_jump_astray_counts_for_nothing() -> None:
    straight, astray = curve(1000, 100, 50, 20), curve(1000, 100, 5000, 20)
    assert straight.equivalent_iterations(90)[0] > 1
    assert astray.equivalent_iterations(20) == (3, False)
    assert 1 < astray.equivalent_iterations(90)[0] < 3
    assert curve(1000, 100, 100, 100, 20).equivalent_iterations(100) == (1, False)


@given(
    st.lists(st.floats(1, 1e7), min_size=2, max_size=20),
    st.floats(0.5, 2e7),
    st.floats(1, 3),
)
def test_less_loss_is_never_worth_less(totals: list[float], loss: float, factor: float) -> None:
    made = curve(*totals)
    better, worse = made.equivalent_iterations(loss), made.equivalent_iterations(loss * factor)
    assert better[0] >= worse[0] - 1e-9
    assert 0 <= worse[0] <= made.iterations[-1]


def test_identity_and_the_optimisers_own_images(
    objective: PerceptualLoss, style: Array, photograph: Array
) -> None:
    photographs = [photograph, photograph[:, ::-1]]
    same = score(lambda image: image, photographs, [style], objective, iterations=20)
    assert same.equivalent_iterations < 1
    assert same.losses.total_loss == pytest.approx(same.before.total_loss)
    for iterations in (10, 15):  # a milestone, and none
        config = OptimizeConfig(objective=CONFIG, iterations=iterations, sizes=(), device="cpu")

        def optimized(image: Array, config: OptimizeConfig = config) -> Array:
            return optimize(image, [style], config)

        result = score(optimized, photographs, [style], objective, iterations=20)
        assert result.equivalent_iterations == pytest.approx(iterations, rel=0.05)
        assert result.beyond == 0


def test_the_same_again_is_the_same_and_needs_no_optimiser(
    objective: PerceptualLoss, style: Array, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    def darker(image: Array) -> Array:
        return (image // 2 + 30).astype(np.uint8)

    seen: list[ScoreProgress] = []
    first = score(darker, [photograph], [style], objective, iterations=6, callback=seen.append)
    assert [p.iteration for p in seen] == list(range(7))
    assert {(p.photograph, p.photographs) for p in seen} == {(1, 1)}
    monkeypatch.setattr(scoring, "optimize_batch", None)  # calling it would raise
    again = score(darker, [photograph], [style], objective, iterations=6)
    assert again == first
    shorter = score(darker, [photograph], [style], objective, iterations=3)
    assert max(shorter.curve()) == 3
    json.dumps(first.to_dict())


def test_a_cached_curve_belongs_to_its_photograph_style_and_objective(
    objective: PerceptualLoss, style: Array, photograph: Array
) -> None:
    square = squares([photograph])[0]

    def with_config(config: ObjectiveConfig, factor: float = 1.0) -> PerceptualLoss:
        changed = copy.deepcopy(objective)
        changed.config = config
        with torch.no_grad():
            for tensor in changed.vgg.parameters():
                tensor *= factor
        return changed

    def key(photograph: Array, *named: Any) -> str:
        return scoring._curve_key(photograph, scoring.objective_key(*named))

    from_file = replace(CONFIG, vgg="vgg.pth:caffe")
    keys = {
        key(square, [style], (), objective),
        key(square[::-1], [style], (), objective),
        key(square, [255 - style], (), objective),
        key(square, [style, style], (), objective),
        key(square, [style, style], (1, 2), objective),
        key(square, [style], (), with_config(replace(CONFIG, style_weight=6))),
        key(square, [style], (), with_config(from_file)),
        key(square, [style], (), with_config(from_file, 1.01)),
    }
    assert len(keys) == 8
    assert key(square, [style], (3,), objective) in keys  # one share is the whole


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"iterations": [0]}', '{"losses": 3}'])
def test_a_damaged_cache_is_made_anew(
    objective: PerceptualLoss, style: Array, photograph: Array, damage: str
) -> None:
    def score_it() -> Score:
        return score(lambda image: image, [photograph], [style], objective, iterations=2)

    first = score_it()
    (file,) = (cache.cache_folder() / "curves").iterdir()
    file.write_text(damage)
    assert score_it() == first
    assert json.loads(file.read_text())["iterations"] == [0, 1, 2]


def test_a_cache_that_cannot_be_written(
    objective: PerceptualLoss,
    style: Array,
    photograph: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NST_CACHE", str(tmp_path / "file"))
    result = score(lambda image: image, [photograph], [style], objective, iterations=1)
    assert result.equivalent_iterations == 0


def test_the_short_form_stops_where_the_optimiser_overtakes(
    objective: PerceptualLoss, style: Array, photograph: Array
) -> None:
    config = OptimizeConfig(objective=CONFIG, iterations=4, sizes=(), device="cpu")
    image = optimize(squares([photograph])[0], [style], config)
    seen: list[ScoreProgress] = []
    short = score(
        lambda _: image,
        [photograph],
        [style],
        objective,
        iterations=60,
        whole_curve=False,
        callback=seen.append,
    )
    assert seen[-1].iteration <= 5
    assert short.equivalent_iterations == pytest.approx(4, rel=0.05)
    whole = score(lambda _: image, [photograph], [style], objective, iterations=12)
    assert whole.equivalent_iterations == pytest.approx(short.equivalent_iterations, rel=1e-6)
    assert max(whole.curve()) == 12


@pytest.mark.parametrize("whole_curve", [True, False])
def test_a_batch_scores_as_one_by_one(
    objective: PerceptualLoss,
    style: Array,
    photograph: Array,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whole_curve: bool,
) -> None:
    photographs = [photograph, photograph[::-1] // 2, photograph[:, ::-1] // 3]
    squared = squares(photographs)
    # Repainted in 1, 3 and 2 steps, so that the optimiser overtakes them one after another.
    painted = {
        square.tobytes(): optimize_batch([square], objective, steps)[0]
        for square, steps in zip(squared, (1, 3, 2), strict=True)
    }
    seen: list[ScoreProgress] = []

    def score_them(count: int, folder: str) -> Score:
        monkeypatch.setenv("NST_CACHE", str(tmp_path / folder))
        seen.clear()
        return score(
            lambda image: painted[image.tobytes()],
            photographs[:count],
            [style],
            objective,
            iterations=8,
            whole_curve=whole_curve,
            callback=seen.append,
        )

    alone = score_them(3, "alone")
    assert [p.photograph for p in seen] == sorted(p.photograph for p in seen)
    monkeypatch.setitem(gatys.AT_ONCE, "cpu", 2)
    together = score_them(1, "together")  # one curve is in the cache when the others begin
    together = score_them(3, "together")
    assert {(p.photograph, p.at_once) for p in seen[1:]} == {(2, 2)}
    assert 0 < seen[1].done < seen[-1].done <= 1
    ends = []
    for one, other in zip(together.photographs, alone.photographs, strict=True):
        assert one.losses == other.losses
        assert one.equivalent_iterations == pytest.approx(other.equivalent_iterations, rel=0.01)
        assert one.beyond is other.beyond is False
        for here, there in zip(one.curve.losses, other.curve.losses, strict=False):
            assert here.total_loss == pytest.approx(there.total_loss, rel=0.01)
        ends.append((one.curve.iterations[-1], other.curve.iterations[-1]))
    if whole_curve:
        assert ends == [(8, 8)] * 3
    else:
        assert [there for _, there in ends] == [1, 3, 2]
        assert 3 <= ends[1][0] == ends[2][0] < 8  # rounding may ask for a step more
    # What is kept is what was measured.
    again = score_them(3, "together")
    assert again == together
    assert len(seen) == 1


def test_a_batch_that_begins_again_leaves_whole_curves(
    objective: PerceptualLoss, style: Array, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gatys.AT_ONCE, "cpu", 2)
    photographs = [photograph, photograph[::-1] // 2]

    def run_out(progress: ScoreProgress) -> None:
        if progress.at_once == 2 and progress.iteration == 3:
            raise torch.OutOfMemoryError

    result = score(
        lambda image: image, photographs, [style], objective, iterations=4, callback=run_out
    )
    for number, photo in enumerate(result.photographs):
        assert photo.curve.iterations == (0, 1, 2, 3, 4)
        square = squares(photographs)[number]
        expected = image_losses(objective, square, optimize_batch([square], objective, 4)[0])
        assert photo.curve.losses[4] == expected


def test_ctrl_c_is_no_score(objective: PerceptualLoss, style: Array, photograph: Array) -> None:
    def stop(progress: ScoreProgress) -> None:
        if progress.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(lambda image: image, [photograph], [style], objective, iterations=20, callback=stop)
    assert not list(cache.cache_folder().rglob("*.json"))


def test_words() -> None:
    photographs = squares([np.zeros((64, 64, 3), np.uint8)])
    assert photographs[0].shape == (64, 64, 3)
    made = curve(1000, 100, 10)
    looks = Look(10, 0.5, 3), Look(30, 1, 1)
    one, best = (
        scoring.PhotographScore(
            ImageLosses(0, loss, 0), *made.equivalent_iterations(loss), made, *looks
        )
        for loss in (50, 5)
    )
    assert Score((one, best), CONFIG).look == looks[0]
    assert Score((one, one), CONFIG).words() == "worth 1.2 ± 0.0 iterations of the optimiser"
    assert Score((best, best), CONFIG).words().startswith("worth at least 2.0")
    assert Score((one, best), CONFIG).words().startswith("worth at least 1.6")
    assert Score((one, best), CONFIG).beyond == 1


def test_bad_arguments(objective: PerceptualLoss, style: Array, photograph: Array) -> None:
    with pytest.raises(UsageError, match="no photographs"):
        score(lambda image: image, [], [style], objective)
    with pytest.raises(UsageError, match="iterations"):
        score(lambda image: image, [photograph], [style], objective, iterations=0)


def test_losses_are_the_objectives(objective: PerceptualLoss, photograph: Array) -> None:
    square = squares([photograph])[0]
    losses = image_losses(objective, square, 255 - square)
    assert losses.content_loss > 0
    assert losses.total_loss == pytest.approx(losses.content_loss + losses.style_loss)
    assert image_losses(objective, square, square).content_loss == 0


def test_the_objective_of_the_training_is_read_from_the_model() -> None:
    config = {
        "objective": {**CONFIG.__dict__, "style_weight": 7.0},
        "style_weights": [0.3, 0.7],
    }
    objective, weights = trained_objective({"config": json.dumps(config)})
    assert objective == replace(CONFIG, style_weight=7.0)
    assert weights == (0.3, 0.7)
    for bad in ({}, {"config": "{"}, {"config": '{"objective": {"wibble": 1}}'}):
        assert trained_objective(bad) == (ObjectiveConfig(), ())


def test_a_model_that_names_no_style_loss_had_gram_matrices() -> None:
    values = asdict(ObjectiveConfig())
    for named, expected in ((True, "swd"), (False, "gram")):
        config = {"objective": dict(values), "style_weights": []}
        if not named:
            del config["objective"]["style_loss"]
        objective, _ = trained_objective({"config": json.dumps(config)})
        assert objective.style_loss == expected

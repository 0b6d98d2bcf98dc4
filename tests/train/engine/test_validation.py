"""The loss by which the best weights are chosen: all terms, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import make_small, small_run

from nst.config import ObjectiveConfig
from nst.io import sample_images
from nst.io.images import load_style
from nst.io.sample_images import validation_photographs
from nst.models.config import TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.perceptual.tensors import to_image
from nst.train.engine import trainer
from nst.train.engine.validation import Validator
from nst.train.evaluation.score import image_losses, squares

SUBPIXEL = TransformerConfig(4, 1, "subsampled_rms", "subpixel", half_channels=4)


@pytest.fixture
def objective(style_path: Path, monkeypatch: pytest.MonkeyPatch) -> PerceptualLoss:
    make_small(monkeypatch)
    config = ObjectiveConfig(style_size=64)
    return build_objective([load_style(style_path)], (), config, torch.device("cpu"))


def loud(config: TransformerConfig) -> TransformerNet:
    torch.manual_seed(3)
    network = TransformerNet(config)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    return network.train()


@pytest.mark.parametrize("config", [TransformerConfig(4, 1), SUBPIXEL])
def test_the_objective_is_that_of_the_repainted_photographs(
    objective: PerceptualLoss, config: TransformerConfig
) -> None:
    network = loud(config)
    loss, picture = Validator(network, objective)()
    losses, images = [], []
    with torch.inference_mode():
        for photo in squares(validation_photographs()):
            batch = torch.tensor(photo.astype(np.float32)).permute(2, 0, 1)[None]
            images.append(to_image(network.eval()(batch, network.export_padding)))
            losses.append(image_losses(objective, photo, images[-1]).total_loss)
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_array_equal(picture[:, 64:], np.vstack(images))


@pytest.mark.parametrize("config", [TransformerConfig(4, 1), SUBPIXEL])
@pytest.mark.parametrize("term", ["temporal_weight", "checkerboard_weight"])
def test_each_term_counts_by_its_weight(
    objective: PerceptualLoss, config: TransformerConfig, term: str
) -> None:
    network = loud(config)
    none, one, two = (
        Validator(network, objective, **{term: weight})()[0] for weight in (0.0, 50.0, 100.0)
    )
    assert one > none
    assert two - none == pytest.approx(2 * (one - none), rel=1e-3)


def test_it_is_the_same_every_time_and_leaves_the_training_alone(
    objective: PerceptualLoss,
) -> None:
    network = loud(SUBPIXEL)
    validator = Validator(network, objective, temporal_weight=1, checkerboard_weight=1)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = validator()[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(9)
    assert validator()[0] == first
    assert network.training


def test_a_network_that_flickers_less_can_win(objective: PerceptualLoss) -> None:
    """Of two networks, the objective alone and all terms together choose differently."""
    quiet, noisy = loud(SUBPIXEL), loud(SUBPIXEL)
    with torch.no_grad():
        quiet.output.weight.mul_(0.02)
    weights = {"temporal_weight": 1e6, "checkerboard_weight": 1e6}
    assert Validator(quiet, objective, **weights)() < Validator(noisy, objective, **weights)()


def test_a_training_validates_by_the_terms_that_it_trains(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, SUBPIXEL)
    seen: list[dict[str, float]] = []

    class Watched(Validator):
        def __init__(self, *arguments: Any, **weights: float) -> None:
            seen.append(weights)
            super().__init__(*arguments, **weights)

    monkeypatch.setattr(trainer, "Validator", Watched)
    trainer.train_style(small_run(style_path, tmp_path / "run", steps=2, checkerboard_weight=70.0))
    assert seen == [{"temporal_weight": 500.0, "checkerboard_weight": 70.0}]


def test_photographs_that_choose_are_not_those_that_are_reported() -> None:
    names = (
        *sample_images.VALIDATION_PHOTOGRAPHS,
        *sample_images.HELD_OUT_PHOTOGRAPHS,
        *sample_images.TRAINING_PHOTOGRAPHS,
    )
    assert len(set(names)) == len(names)
    assert all(min(photo.shape[:2]) >= 256 for photo in validation_photographs())

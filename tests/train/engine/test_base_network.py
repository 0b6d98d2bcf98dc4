"""The base network: many styles in one, merged into a start for others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import make_small, small_run

from nst.config import ObjectiveConfig
from nst.errors import ModelError
from nst.io.images import Array, center_square, load_style
from nst.io.sample_images import held_out
from nst.models.config import PRESETS, TransformerConfig, preset_config
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.perceptual.tensors import to_tensor
from nst.train.content.dataset import open_content
from nst.train.engine import base_network as base
from nst.train.engine.base_network import base_network, train_base, varied
from nst.train.engine.trainer import train_style
from nst.train.run.checkpoint import save_checkpoint

CONFIG = TransformerConfig(8, 1, "subsampled_rms", "subpixel", half_channels=4)


def test_an_objective_aims_at_another_s_style(style_path: Path, photograph: Array) -> None:
    config, cpu = ObjectiveConfig(style_size=64), torch.device("cpu")
    style = load_style(style_path)
    changing = build_objective([style], (), config, cpu)
    objectives = [build_objective([s], (), config, cpu, changing.vgg) for s in (255 - style, style)]
    content = torch.from_numpy(photograph[:64, :64].copy()).permute(2, 0, 1)[None].float()
    image, targets = 255 - content, changing.content_features(content)
    totals = []
    for objective in objectives:
        changing.aim_at(objective)
        got, expected = changing(image, targets), objective(image, targets)
        torch.testing.assert_close(got.content_loss, expected.content_loss)
        torch.testing.assert_close(got.style_loss, expected.style_loss)
        totals.append(float(got.total_loss))
    assert totals[0] != pytest.approx(totals[1], rel=1e-3)


def test_variants_are_parts_of_the_style(style_path: Path) -> None:
    style = load_style(style_path)
    rng = np.random.default_rng(0)
    for _ in range(8):
        other = varied(style, rng)
        assert min(other.shape[:2]) >= min(style.shape[:2]) // 2
        assert other.dtype == np.uint8
        assert other.shape[:2] != style.shape[:2] or not np.array_equal(other, style)


def test_training_makes_a_start_that_helps(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the base of variants of a style, that style begins better than from noise."""
    make_small(monkeypatch, CONFIG)
    monkeypatch.setattr(base, "FOLDER", tmp_path)
    monkeypatch.setattr(base, "ROUND", 25)
    assert base_network("small") is None
    style = load_style(style_path)
    styles = [varied(style, np.random.default_rng(seed)) for seed in range(2)]
    reports: list[tuple[int, float]] = []
    network = train_base(
        "small",
        styles,
        open_content(None, 0, 64 + 2 * CONFIG.context),
        rounds=6,
        batch_size=2,
        side=64,
        learning_rate=5e-3,
        device="cpu",
        config=ObjectiveConfig(style_size=64),
        callback=lambda *report: reports.append(report),
    )
    assert [rounds for rounds, _ in reports] == [1, 2, 3, 4, 5, 6]
    assert all(loss > 0 for _, loss in reports)
    save_checkpoint(tmp_path / "small.safetensors", network, {})
    losses = {}
    for from_scratch in (False, True):
        out = tmp_path / str(from_scratch)
        run = small_run(style_path, out, steps=2, from_scratch=from_scratch)
        losses[from_scratch] = train_style(run).after.total_loss
    assert losses[False] < 0.95 * losses[True]


def test_a_base_of_another_shape_or_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, CONFIG)
    monkeypatch.setattr(base, "FOLDER", tmp_path)
    save_checkpoint(tmp_path / "small.safetensors", TransformerNet(TransformerConfig(4, 1)), {})
    assert base_network("small") is None
    (tmp_path / "small.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"small\.safetensors"):
        base_network("small")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_package_has_bases(preset: str) -> None:
    """Of today's shape, in float32, and painting something: light where the photograph is light."""
    network = base_network(preset)
    assert network is not None
    assert network.config == preset_config(preset)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    photograph = center_square(held_out()[0], 96)
    with torch.no_grad():
        painted = network.eval()(to_tensor(photograph))
    assert torch.isfinite(painted).all()
    assert painted.std() > 10
    grey = painted.mean((0, 1)).numpy()
    assert np.corrcoef(grey.ravel(), photograph.mean(2).ravel())[0, 1] > 0.5

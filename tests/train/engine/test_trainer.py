"""Training with a small network: it learns, it ends well, it leaves whole files."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import make_small, small_run

from nst.color.transfer import grey, keep_color
from nst.config import ObjectiveConfig
from nst.errors import ImageError, NstError, UsageError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import load_image
from nst.io.sample_images import held_out
from nst.models.config import TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.perceptual.style_image import prepare_style
from nst.perceptual.tensors import to_tensor
from nst.train.engine.loop import Loop
from nst.train.engine.schedule import DEFAULTS, Budget, schedule
from nst.train.engine.trainer import TrainProgress, train_style
from nst.train.evaluation.score import squares
from nst.train.run import folder as run
from nst.train.run.checkpoint import load_checkpoint

options = partial(small_run, steps=40)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, TransformerConfig(width=8, blocks=1))


def test_learns_and_leaves_model_checkpoint_and_preview(tmp_path: Path, style_path: Path) -> None:
    seen: list[TrainProgress] = []
    config = options(style_path, tmp_path / "run", artist="Nobody", year="2026", samples=4)
    result = train_style(config, seen.append)

    assert result.after.total_loss < 0.6 * result.before.total_loss
    assert result.before.content_loss == pytest.approx(0, abs=1)
    assert result.steps == 40
    assert not result.interrupted
    assert [p.step for p in seen] == list(range(1, 41))
    assert seen[-1].done == 1
    assert all(np.isfinite([p.total_loss, p.images_per_second, p.seconds_left]).all() for p in seen)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"stripes.onnx", "stripes.safetensors", "preview.png", "run.toml", "log.csv"}
    assert names >= {"losses.png", "samples", "checkpoints", "environment.json", "result.json"}
    assert ".lock" not in names
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 4
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"best.safetensors", "step-0000000.safetensors", "step-0000040.safetensors"}
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["after"]["total_loss"] == pytest.approx(result.after.total_loss)
    assert result.peak_memory is not None
    assert result.peak_memory > 0.1

    preview = load_image(result.preview)
    assert preview.shape[0] > 900
    with Stylizer(result.model) as stylizer:
        digest = hashlib.sha256(style_path.read_bytes()).hexdigest()
        assert stylizer.metadata["style_sha256"] == digest
        assert stylizer.metadata["artist"] == "Nobody"
        assert stylizer.metadata["year"] == "2026"
        assert stylizer.name == "stripes"
        config = json.loads(stylizer.metadata["config"])
        assert config["objective"]["style_size"] == 64
        assert config["style"] == ["stripes.png"]
        assert str(tmp_path) not in json.dumps(stylizer.metadata)
        assert json.loads(stylizer.metadata["losses"])["total_loss"] == pytest.approx(
            result.after.total_loss, rel=1e-3
        )
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.network.config == TransformerConfig(width=8, blocks=1)
    assert checkpoint.metadata["steps"] == "40"
    assert [min(style.shape[:2]) for style in checkpoint.styles] == [64]


def test_a_network_that_paints_the_luminance_alone(tmp_path: Path, style_path: Path) -> None:
    """Photographs count without their colours, and the model says that it paints none."""
    objective = ObjectiveConfig(style_size=64, keep_color="luminance")
    result = train_style(options(style_path, tmp_path / "run", objective=objective))
    assert result.before.content_loss > 1000  # a photograph has colours
    grey_loss, loss = [], []
    style = prepare_style(style_path, objective.style_size).image
    built = build_objective([style], (), objective, torch.device("cpu"))
    with Stylizer(result.model) as stylizer:
        assert stylizer.keep_color == "luminance"
        for photograph in squares(held_out()):
            painted = stylizer(photograph)
            for losses, image in ((grey_loss, grey(painted)), (loss, painted)):
                content = built.content_features(to_tensor(photograph))
                losses.append(float(built(to_tensor(image), content).total_loss))
        # The preview shows it as it is to be used.
        sheet = run.preview_sheet(
            load_checkpoint(result.checkpoint).styles,
            lambda image: keep_color(stylizer(image), image, "luminance"),
        )
        np.testing.assert_array_equal(load_image(result.preview), sheet)
    # A training in bf16 is judged in float32, too: only pixels that round the other way differ.
    assert np.mean(loss) == pytest.approx(result.after.total_loss, rel=1e-4)
    assert np.mean(grey_loss) < 1.1 * np.mean(loss)
    plain = train_style(options(style_path, tmp_path / "plain", steps=1))
    with Stylizer(plain.model) as stylizer:
        assert stylizer.keep_color is None


def test_ends_with_a_score_and_all_precisions(tmp_path: Path, style_path: Path) -> None:
    stages: list[str] = []
    config = options(
        style_path, tmp_path / "run", score=True, steps=25, precisions=("fp32", "int8", "fp16")
    )
    result = train_style(config, stage=stages.append)
    assert stages == ["training", "exporting", "scoring"]
    assert [e.path.name for e in result.exported] == [
        "stripes.onnx",
        "stripes-int8.onnx",
        "stripes-fp16.onnx",
    ]
    assert result.model == result.exported[0].path
    assert result.score is not None
    assert result.score.equivalent_iterations > 1
    assert result.score.losses.total_loss == pytest.approx(result.after.total_loss, rel=1e-4)
    assert result.score.before.total_loss == pytest.approx(result.before.total_loss, rel=1e-4)
    for exported in result.exported[1:]:
        assert exported.loss_over_fp32 is not None
        assert exported.within
        with Stylizer(exported.path) as stylizer:
            assert stylizer.precision == exported.precision
            assert float(stylizer.metadata["loss_over_fp32"]) == pytest.approx(
                exported.loss_over_fp32, abs=1e-4
            )


def test_the_same_seed_trains_the_same_network(tmp_path: Path, style_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result = train_style(options(style_path, tmp_path / name, steps=3, seed=seed))
        weights.append(load_checkpoint(result.checkpoint).network.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_ctrl_c_exports_what_there_is(tmp_path: Path, style_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    result = train_style(options(style_path, tmp_path / "run", steps=10_000), stop)
    assert result.interrupted
    assert result.steps == 5
    with Stylizer(result.model) as stylizer:
        assert stylizer(np.zeros((40, 50, 3), np.uint8)).shape == (40, 50, 3)


def test_a_time_budget_ends_in_time(tmp_path: Path, style_path: Path) -> None:
    result = train_style(options(style_path, tmp_path / "run", steps=None, seconds=2))
    assert result.steps >= 1
    assert result.seconds >= 2


def test_several_styles_and_a_content_folder(
    tmp_path: Path, style_path: Path, photograph: np.ndarray
) -> None:
    from nst.io.images import save_image

    second = tmp_path / "second.png"
    save_image(second, 255 - load_image(style_path))
    save_image(tmp_path / "content" / "a.png", photograph)
    (tmp_path / "content" / "bad.jpg").write_text("x")
    config = options(
        style_path,
        tmp_path / "run",
        style=(style_path, second),
        style_weights=(3, 1),
        content=tmp_path / "content",
        steps=6,
    )
    result = train_style(config)
    assert [p.name for p in result.skipped] == ["bad.jpg"]
    with Stylizer(result.model) as stylizer:
        assert stylizer.name == "stripes + second"
        assert len(stylizer.metadata["style_sha256"].split()) == 2


def test_losses_that_are_not_finite_export_nothing(tmp_path: Path, style_path: Path) -> None:
    objective = ObjectiveConfig(style_size=64, style_weight=1e38)
    with pytest.raises(NstError, match="ceased to be finite"):
        train_style(options(style_path, tmp_path / "run", objective=objective))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [1, 5])
def test_a_network_that_never_learned_is_not_exported(
    tmp_path: Path, style_path: Path, steps: int
) -> None:
    objective = ObjectiveConfig(style_size=64, style_weight=1e38)
    with pytest.raises(NstError, match="ceased to be finite"):
        train_style(options(style_path, tmp_path / "run", objective=objective, steps=steps))


def test_the_shortest_time_budget_makes_a_step(tmp_path: Path, style_path: Path) -> None:
    result = train_style(options(style_path, tmp_path / "run", steps=None, seconds=1e-3))
    assert result.steps == 1


def test_a_style_that_vanishes_or_has_an_odd_name(tmp_path: Path, style_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"w\xff.png")
    odd.write_bytes(style_path.read_bytes())
    result = train_style(options(odd, tmp_path / "run", steps=2), lambda _: odd.unlink(True))
    with Stylizer(result.model) as stylizer:
        assert stylizer.name == "w?"


def test_a_folder_with_another_run_is_left_alone(tmp_path: Path, style_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(NstError, match="not an empty folder"):
        train_style(options(style_path, tmp_path / "run"))
    assert (tmp_path / "run" / "precious").read_text() == "x"
    with pytest.raises(UsageError, match="name the folder"):
        train_style(options(style_path, tmp_path / "model.onnx"))


def test_runs_are_numbered(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = options(style_path, None)
    made = [run.make_run_folder(config) for _ in range(3)]
    assert made == [Path("runs/stripes"), Path("runs/stripes-2"), Path("runs/stripes-3")]


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "truncated"])
def test_bad_styles_leave_no_folder(tmp_path: Path, bad_images: dict[str, Path], kind: str) -> None:
    with pytest.raises(ImageError, match=str(bad_images[kind])):
        train_style(options(bad_images[kind], tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_schedule_rises_then_falls_to_nothing() -> None:
    values = [schedule(done / 100) for done in range(101)]
    peak = int(np.argmax(values))
    assert 1 <= peak <= 5
    assert values[peak] == pytest.approx(1, abs=0.01)
    assert values[-1] == pytest.approx(0, abs=1e-6)
    assert all(np.diff(values[:peak]) > 0)
    assert all(np.diff(values[peak:]) < 0)


def test_crops_grow_and_batches_shrink_on_a_cpu(style_path: Path) -> None:
    loop = Loop.__new__(Loop)
    loop.config = options(style_path, Path("x"), size=256, batch_size=3, steps=100)
    loop.defaults = DEFAULTS["cpu"]
    loop.network = TransformerNet(TransformerConfig(4, 1))
    loop.budget = Budget(loop.config, 1)
    loop._planned = deque()
    assert loop._plan(0) == (12, 64)
    assert loop._plan(50) == (6, 128)
    assert loop._plan(99) == (3, 256)
    loop.config = options(style_path, Path("x"), size=96, batch_size=3, steps=100)
    assert loop._plan(0) == (3, 96)
    # Where networks see what surrounds a crop, it comes with that.
    loop.network = TransformerNet(TransformerConfig(4, 1, "subsampled_rms", "subpixel"))
    assert loop._plan(0) == (3, 96 + 2 * 18)

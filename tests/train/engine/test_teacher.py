"""A network learns from pictures that it is shown: the optimiser's, or another network's."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import make_small, small_run

from nst.config import ObjectiveConfig
from nst.errors import ModelError, NstError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, load_image, resize_short, save_image
from nst.perceptual.gatys import optimize_batch
from nst.perceptual.losses import build_objective
from nst.train.content.dataset import BuiltinContent
from nst.train.engine import teacher as teacher_module
from nst.train.engine.distributed import ALONE
from nst.train.engine.teacher import make_teacher
from nst.train.engine.trainer import TrainProgress, resume_style, train_style
from nst.train.evaluation.score import image_losses
from nst.train.run.checkpoint import load_checkpoint
from nst.train.run.log import read_log

CPU = torch.device("cpu")


options = partial(small_run, steps=4, save_every=0.0, teacher_images=3, teacher_iterations=4)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def test_the_optimizer_paints_once_and_teaches(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []

    def counting(contents: list[Array], *rest: Any) -> list[Array]:
        painted.append(len(contents))
        return optimize_batch(contents, *rest)

    monkeypatch.setattr(teacher_module, "optimize_batch", counting)
    stages: list[str] = []
    config = options(style_path, tmp_path / "a", teacher="optimizer", teacher_weight=2.0)
    one = train_style(config, stage=stages.append)
    two = train_style(options(style_path, tmp_path / "b", teacher="optimizer", teacher_weight=2.0))
    assert painted == [3]  # the second run finds them
    assert stages[:2] == ["painting", "training"]
    alone = train_style(options(style_path, tmp_path / "c"))
    nets = [load_checkpoint(r.checkpoint).network.state_dict() for r in (one, two, alone)]
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    assert not all(torch.equal(value, nets[2][name]) for name, value in nets[0].items())
    rows = read_log(tmp_path / "a" / "log.csv")
    assert all(row.teacher_loss > 0 for row in rows)
    for row in rows:
        parts = row.content_loss + row.style_loss + row.tv_loss + row.teacher_loss
        parts += row.temporal_loss + row.checkerboard_loss
        assert row.total_loss == pytest.approx(parts, rel=1e-3)
    assert all(row.teacher_loss == 0 for row in read_log(tmp_path / "c" / "log.csv"))


def test_a_taught_run_resumes_as_if_it_had_never_stopped(tmp_path: Path, style_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 24:
            raise KeyboardInterrupt

    taught = {"teacher": "optimizer", "steps": 30, "batch_size": 1}
    train_style(options(style_path, tmp_path / "cut", **taught), stop)
    resumed = resume_style(tmp_path / "cut")
    whole = train_style(options(style_path, tmp_path / "whole", **taught))
    one, other = (load_checkpoint(r.checkpoint).network.state_dict() for r in (resumed, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_network_is_imitated(tmp_path: Path, style_path: Path) -> None:
    other = tmp_path / "other.png"  # so that a student alone becomes another network
    save_image(other, 255 - load_image(style_path))
    quick = {"steps": 40, "batch_size": 1, "learning_rate": 2e-2}
    teacher = train_style(options(other, tmp_path / "teacher", **quick))
    content = BuiltinContent(5, 64)
    crops = [content.crop(index, 64) for index in range(8)]
    with Stylizer(teacher.model, provider="cpu") as stylizer:
        wanted = [stylizer(crop) for crop in crops]
    style = resize_short(load_image(style_path), 64)
    objective = build_objective([style], (), ObjectiveConfig(style_size=64), CPU)
    off = {}
    for shown in (None, teacher.model, teacher.checkpoint):
        more = {"teacher": str(shown), "teacher_weight": 1000.0} if shown else {}
        student = train_style(options(style_path, tmp_path / f"by-{len(off)}", **quick, **more))
        with Stylizer(student.model, provider="cpu") as stylizer:
            off[shown] = sum(
                image_losses(objective, target, stylizer(crop)).content_loss
                for target, crop in zip(wanted, crops, strict=True)
            )
    # 0.66 of it.
    assert max(off[teacher.model], off[teacher.checkpoint]) < 0.85 * off[None]


def test_a_teacher_without_weight_is_none(tmp_path: Path, style_path: Path) -> None:
    objective = build_objective(
        [resize_short(load_image(style_path), 64)], (), ObjectiveConfig(style_size=64), CPU
    )
    config = options(style_path, tmp_path, teacher="optimizer", teacher_weight=0.0)
    content = BuiltinContent(0, 64)
    assert make_teacher(config, [], content, objective, ALONE, lambda _: None) is None


@pytest.mark.parametrize("name", ["none.onnx", "none.safetensors", "text.jpg"])
def test_a_teacher_that_cannot_be_read(
    tmp_path: Path, style_path: Path, bad_images: dict[str, Path], name: str
) -> None:
    path = bad_images["text"] if name == "text.jpg" else tmp_path / name
    with pytest.raises((ModelError, NstError), match=path.name):
        train_style(options(style_path, tmp_path / "run", teacher=str(path)))
    assert not (tmp_path / "run").exists()

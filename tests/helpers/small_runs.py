"""Trainings small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst.config import ObjectiveConfig
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss
from nst.train.config import TrainConfig
from nst.train.content.dataset import open_content
from nst.train.engine.loop import Loop
from nst.train.evaluation import score as scoring
from nst.train.run.progress import TrainProgress

SMALL = TransformerConfig(width=4, blocks=1)


def make_small(monkeypatch: pytest.MonkeyPatch, network: TransformerConfig = SMALL) -> None:
    """Add the preset `small`, and judge runs on small photographs."""
    monkeypatch.setattr(scoring, "EVALUATION_SIDE", 64)
    monkeypatch.setitem(presets.PRESETS, "small", network)


def small_run(style: Path, out: Path | None, /, **more: object) -> TrainConfig:
    """Options of a training with the preset `small`, quiet but for what `more` asks for."""
    chosen: dict[str, object] = {
        "style": (style,),
        "out": out,
        "preset": "small",
        "size": 64,
        "batch_size": 2,
        "device": "cpu",
        "objective": ObjectiveConfig(style_loss="gram", style_size=64),
        "learning_rate": 2e-3,
        "samples": 0,
        "save_every": 1e9,  # so that slow machines do not write more checkpoints
        "score": False,
    }
    return TrainConfig(**{**chosen, **more})  # type: ignore[arg-type]


def steps_of(
    objective: PerceptualLoss, network: TransformerNet, config: TrainConfig
) -> list[TrainProgress]:
    """What a training on built-in content reports, step by step."""
    seen: list[TrainProgress] = []
    content = open_content(None, 0, config.size + 2 * network.context)
    Loop(network, objective, config, content).run(seen.append)
    return seen

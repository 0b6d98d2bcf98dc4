"""Invalid options are refused with one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst.config import ObjectiveConfig, OptimizeConfig, check_weights
from nst.errors import UsageError
from nst.models.config import TransformerConfig, preset_config
from nst.train.config import TrainConfig

BAD = [math.nan, math.inf, -math.inf, -1.0]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["content_weight", "style_weight", "tv_weight"])
def test_bad_weights(name: str, value: float) -> None:
    with pytest.raises(UsageError, match="finite number"):
        ObjectiveConfig(**{name: value})


@pytest.mark.parametrize("value", [*BAD, 0.0, 1001.0])
def test_bad_style_strength(value: float) -> None:
    with pytest.raises(UsageError, match="style strength"):
        ObjectiveConfig(style_strength=value)


@pytest.mark.parametrize("value", [64.5, 64.0, True, math.nan])
def test_the_style_size_is_a_whole_number(value: Any) -> None:
    with pytest.raises(UsageError, match=f"style size is {value}: give a whole number"):
        ObjectiveConfig(style_size=value)


def test_nothing_to_aim_at() -> None:
    with pytest.raises(UsageError, match="both 0"):
        ObjectiveConfig(content_weight=0, style_weight=0)
    assert ObjectiveConfig(content_weight=0).style_weight is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5).filter(lambda w: sum(w) > 1e-3))
def test_weights_are_shares(weights: list[float]) -> None:
    shares = check_weights("w", weights, len(weights))
    assert sum(shares) == pytest.approx(1)
    assert check_weights("w", (), len(weights)) == pytest.approx([1 / len(weights)] * len(weights))


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"sizes": (512, 256)},
        {"sizes": (7,)},
        {"optimizer": "sgd"},
        {"learning_rate": 0},
        {"iterations": 1.5},
        {"sizes": (64.5,)},
        {"seed": 1.0},
    ],
)
def test_bad_optimize_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        OptimizeConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"style": ()},
        {"steps": 0},
        {"seconds": math.nan},
        {"steps": 5, "seconds": 5},
        {"batch_size": 0},
        {"size": 10},
        {"preset": "splendid"},
        {"learning_rate": math.inf},
        {"style_weights": (1.0, 2.0)},
        {"seed": -1},
        {"batch_size": 1.5},
        {"steps": 10.0},
        {"keep": True},
        {"samples": 0.5},
        {"teacher_images": 8.5},
        {"size": 256.5},
    ],
)
def test_bad_train_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TrainConfig(**{"style": (Path("a.jpg"),), **options})  # type: ignore[arg-type]


@given(st.integers(1, 64), st.integers(1, 9))
def test_network_config_round_trip(width: int, blocks: int) -> None:
    config = TransformerConfig(width, blocks)
    assert TransformerConfig.from_dict(config.to_dict()) == config


def test_bad_network_configs() -> None:
    with pytest.raises(ValueError, match="depth"):
        TransformerConfig.from_dict({"width": 32, "depth": 5})
    with pytest.raises(ValueError, match="width"):
        TransformerConfig(width=0)
    with pytest.raises(ValueError, match="quality"):
        preset_config("splendid")

"""The optimiser of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nst.config import ObjectiveConfig, OptimizeConfig
from nst.errors import NstError, UsageError
from nst.gatys import OptimizeProgress, optimize
from nst.images import Array, load_image, save_image


@pytest.fixture(scope="module")
def style(style_path: Path) -> Array:
    return load_image(style_path)


SMALL = ObjectiveConfig(style_size=64)


def run(content: Array, style: Array, **options: object) -> tuple[Array, list[OptimizeProgress]]:
    seen: list[OptimizeProgress] = []
    config = OptimizeConfig(**{"objective": SMALL, "sizes": (), "device": "cpu", **options})  # type: ignore[arg-type]
    return optimize(content, [style], config, seen.append), seen


def test_lbfgs_brings_the_loss_down(photograph: Array, style: Array) -> None:
    image, seen = run(photograph, style, iterations=30)
    assert image.shape == photograph.shape
    assert image.dtype == np.uint8
    assert [p.step for p in seen] == list(range(1, 31))
    assert seen[0].content_loss > 0
    assert seen[-1].total_loss < 0.3 * seen[0].total_loss
    totals = [p.total_loss for p in seen]
    assert totals == sorted(totals, reverse=True)
    for p in seen:
        assert p.total_loss == pytest.approx(p.content_loss + p.style_loss + p.tv_loss, rel=1e-4)


def test_adam_brings_the_loss_down(photograph: Array, style: Array) -> None:
    _, seen = run(photograph, style, iterations=20, optimizer="adam", learning_rate=5.0)
    assert seen[-1].total_loss < 0.6 * seen[0].total_loss
    totals = [p.total_loss for p in seen]
    assert totals == sorted(totals, reverse=True)


def test_noise_start_depends_on_the_seed_alone(photograph: Array, style: Array) -> None:
    one, seen = run(photograph, style, iterations=2, init="noise", seed=3)
    two, _ = run(photograph, style, iterations=2, init="noise", seed=3)
    other, _ = run(photograph, style, iterations=2, init="noise", seed=4)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert seen[0].content_loss > 1000


def test_file_start(tmp_path: Path, photograph: Array, style: Array) -> None:
    save_image(tmp_path / "start.png", photograph)
    from_file, _ = run(photograph, style, iterations=2, init=tmp_path / "start.png")
    from_content, _ = run(photograph, style, iterations=2)
    np.testing.assert_array_equal(from_file, from_content)


def test_coarse_to_fine(photograph: Array, style: Array) -> None:
    image, seen = run(photograph, style, iterations=3, sizes=(64, 160))
    assert max(image.shape[:2]) == 160
    assert [p.size for p in seen] == [(48, 64)] * 3 + [(120, 160)] * 3
    assert seen[-1].steps == 6


def test_ctrl_c_gives_what_there_is(photograph: Array, style: Array) -> None:
    def stop(progress: OptimizeProgress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    config = OptimizeConfig(objective=SMALL, sizes=(), iterations=500)
    image = optimize(photograph, [style], config, stop)
    assert (image != photograph).any()


def test_tv_weight_smooths(photograph: Array, style: Array) -> None:
    rough, _ = run(photograph, style, iterations=15)
    objective = ObjectiveConfig(style_size=64, tv_weight=20_000)
    smooth, _ = run(photograph, style, iterations=15, objective=objective)

    def steps(image: Array) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=1)).mean())

    assert steps(smooth) < 0.8 * steps(rough)


def test_a_tiny_photograph_and_infinite_losses_are_one_line(style: Array) -> None:
    with pytest.raises(UsageError, match="too few"):
        run(np.zeros((8, 100, 3), np.uint8), style)
    objective = ObjectiveConfig(style_weight=1e38)
    with pytest.raises(NstError, match="not finite"):
        run(np.zeros((64, 64, 3), np.uint8), style, iterations=3, objective=objective)

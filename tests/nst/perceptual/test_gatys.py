"""The optimisation of pixels, of one image and of batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nst.color.transfer import style_in_colors_of
from nst.config import KeepColor, ObjectiveConfig, OptimizeConfig
from nst.errors import NstError, UsageError
from nst.io.images import Array, center_square, load_image, save_image
from nst.perceptual.gatys import BatchProgress, OptimizeProgress, optimize, optimize_batch
from nst.perceptual.losses import PerceptualLoss
from nst.perceptual.tensors import to_tensor


@pytest.fixture(scope="module")
def style(style_path: Path) -> Array:
    return load_image(style_path)


SMALL = ObjectiveConfig(style_size=64)


def run(content: Array, style: Array, **options: object) -> tuple[Array, list[OptimizeProgress]]:
    seen: list[OptimizeProgress] = []
    config = OptimizeConfig(**{"objective": SMALL, "sizes": (), "device": "cpu", **options})  # type: ignore[arg-type]
    return optimize(content, [style], config, seen.append), seen


def test_lbfgs_brings_the_loss_down(photograph: Array, style: Array) -> None:
    strong = ObjectiveConfig(style_size=64, style_strength=2)  # far from the photograph
    image, seen = run(photograph, style, iterations=30, objective=strong)
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


def test_ctrl_c_gives_the_best_image_so_far(photograph: Array, style: Array) -> None:
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


SHALLOW = ObjectiveConfig(
    content_layers=("relu2_2",),
    style_layers=("relu1_2", "relu2_2"),
    style_loss="gram",
    style_size=64,
)


def test_keep_color_luminance_keeps_the_chrominance(photograph: Array, style: Array) -> None:
    config = replace(SMALL, keep_color="luminance")
    image, seen = run(photograph, style, iterations=15, objective=config)
    luma = np.array([0.299, 0.587, 0.114])
    inside = ((image > 0) & (image < 255)).all(2)
    assert inside.mean() > 0.3
    chroma, wanted = ((i - (i @ luma)[..., None])[inside] for i in (image, photograph))
    assert np.abs(chroma - wanted).max() <= 2
    assert np.abs(image @ luma - photograph @ luma)[inside].mean() > 5
    assert seen[-1].total_loss < 0.6 * seen[0].total_loss
    np.testing.assert_array_equal(seen[-1].image(), image)


@pytest.mark.parametrize("how", ["linear", "histogram"])
def test_keep_color_recolours_the_style(how: KeepColor, photograph: Array, style: Array) -> None:
    """The result is that of a style image recoloured before (Gatys et al. 2016)."""
    image, _ = run(photograph, style, iterations=6, objective=replace(SMALL, keep_color=how))
    other = style_in_colors_of(style, [photograph], how)
    expected, _ = run(photograph, np.asarray(other, np.uint8), iterations=6)
    np.testing.assert_array_equal(image, expected)


@pytest.fixture(scope="module")
def objective(style: Array) -> PerceptualLoss:
    return PerceptualLoss([to_tensor(style)], (), SHALLOW)


@pytest.fixture(scope="module")
def contents(photograph: Array) -> list[Array]:
    square = center_square(photograph, 64)
    return [square, np.ascontiguousarray(square[::-1, :, ::-1] // 3), square // 2 + 90]


def test_a_batch_equals_its_images_alone(
    objective: PerceptualLoss, contents: list[Array], style: Array
) -> None:
    seen: list[BatchProgress] = []
    # Rounding grows from step to step, so there are few.
    images = optimize_batch(contents, objective, 5, seen.append, at_once=2)
    assert [(p.first, p.step, len(p.total_losses)) for p in seen] == [
        *((0, step, 2) for step in range(1, 6)),
        *((2, step, 1) for step in range(1, 6)),
    ]
    totals = [*seen[4].total_losses, *seen[9].total_losses]
    np.testing.assert_array_equal(seen[9].images()[0], images[2])
    config = OptimizeConfig(objective=SHALLOW, iterations=5, sizes=(), device="cpu")
    for content, image, total in zip(contents, images, totals, strict=True):
        alone: list[OptimizeProgress] = []
        expected = optimize(content, [style], config, alone.append, objective)
        assert np.abs(image.astype(int) - expected).mean() < 0.1
        assert (image != content).any()
        assert total == pytest.approx(alone[-1].total_loss, rel=1e-3)


def test_a_callback_ends_a_batch_and_the_next_begins(
    objective: PerceptualLoss, contents: list[Array]
) -> None:
    steps: list[tuple[int, int]] = []

    def callback(progress: BatchProgress) -> bool:
        steps.append((progress.first, progress.step))
        return progress.first == 0 and progress.step == 2

    images = optimize_batch(contents[:2], objective, 3, callback)
    assert steps == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    (expected,) = optimize_batch(contents[:1], objective, 2)
    np.testing.assert_array_equal(images[0], expected)


@pytest.mark.parametrize("room", [1, 2])
def test_too_little_memory_halves_the_batch(
    objective: PerceptualLoss, contents: list[Array], room: int
) -> None:
    tried: list[int] = []

    def allocate(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tried.append(len(inputs[0]))
        if tried[-1] > room:
            raise torch.OutOfMemoryError

    expected = optimize_batch([*contents, contents[0]], objective, 1)
    handle = objective.register_forward_pre_hook(allocate)
    try:
        images = optimize_batch([*contents, contents[0]], objective, 1, at_once=4)
        room = 0
        with pytest.raises(NstError, match="little memory: use the CPU"):
            optimize_batch(contents[:2], objective, 1, at_once=4)
    finally:
        handle.remove()
    assert tried[:2] == [4, 2]
    assert tried[-2:] == [2, 1]
    for image, other in zip(images, expected, strict=True):
        assert np.abs(image.astype(int) - other).max() <= 1


def test_ctrl_c_is_the_callers(objective: PerceptualLoss, contents: list[Array]) -> None:
    def stop(_: BatchProgress) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize_batch(contents, objective, 5, stop)


def test_bad_batches(objective: PerceptualLoss, contents: list[Array]) -> None:
    assert optimize_batch([], objective, 5) == []
    with pytest.raises(UsageError, match=r"64.*96"):
        optimize_batch([contents[0], np.zeros((96, 64, 3), np.uint8)], objective, 5)
    with pytest.raises(UsageError, match="too few"):
        optimize_batch([contents[0][:20]], objective, 5)
    with pytest.raises(UsageError, match="at_once"):
        optimize_batch(contents, objective, 5, at_once=0)
    with pytest.raises(UsageError, match="iterations"):
        optimize_batch(contents, objective, 0)

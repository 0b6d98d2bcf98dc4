"""Motion that is made up, and the loss of what a network paints differently under it."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from small_runs import make_small, small_run, steps_of
from torch import Tensor

from nst.config import ObjectiveConfig
from nst.errors import UsageError
from nst.io.images import load_style
from nst.models.config import PRESETS, TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.train.config import TrainConfig
from nst.train.engine import loop as loop_module
from nst.train.engine import step as update_module
from nst.train.engine.schedule import temporal_weight
from nst.train.engine.step import TrainStep
from nst.train.engine.trainer import TrainResult, resume_style, train_style
from nst.train.losses import temporal
from nst.train.losses.temporal import move, moving, temporal_loss
from nst.train.run.checkpoint import load_checkpoint
from nst.train.run.log import read_log
from nst.train.run.progress import TrainProgress

SUBPIXEL = TransformerConfig(4, 1, "subsampled_rms", "subpixel", half_channels=4)
KINDS = ("TURN", "ZOOM", "SHIFT", "BEND", "GAIN", "OFFSET", "NOISE")
Values = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, SUBPIXEL)
    torch.manual_seed(0)


def only(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """Leave these kinds of change as great as they are, and no other."""
    for kind in set(KINDS) - set(kinds):
        monkeypatch.setattr(temporal, kind, 0.0)


def smooth(count: int, height: int, width: int) -> Tensor:
    """Crops of waves, each of its own."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phases = torch.arange(count * 3).view(count, 3, 1, 1) * 0.7
    return 128 + 50 * torch.sin(x / 7 + phases) + 45 * torch.cos(y / 9 - x / 20 + 2 * phases)


def pixels(grid: Tensor) -> tuple[Values, Values]:
    """Columns and rows of the places in a grid, 0 for the centre of the first pixel."""
    height, width = grid.shape[1:3]
    x, y = grid.double().unbind(3)
    return ((x + 1) * width / 2 - 0.5).numpy(), ((y + 1) * height / 2 - 0.5).numpy()


def as_grid(columns: Values, rows: Values) -> Tensor:
    """The inverse of `pixels`."""
    height, width = columns.shape[1:]
    x, y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    return torch.from_numpy(np.stack([x, y], 3)).float()


def displacements(grid: Tensor) -> tuple[Values, Values, Values, Values]:
    """How far each pixel moved, right and down, and where it is from the centre."""
    columns, rows = pixels(grid)
    down, right = np.indices(columns.shape[1:])
    middle = (columns.shape[1] - 1) / 2, (columns.shape[2] - 1) / 2
    return columns - right, rows - down, right - middle[1], down - middle[0]


def sampled(images: Tensor, columns: Values, rows: Values) -> Values:
    """SciPy's splines at places in the images, mirrored at their edges."""
    made = [
        [map_coordinates(channel.double().numpy(), [y, x], mode="reflect") for channel in image]
        for image, x, y in zip(images, columns, rows, strict=True)
    ]
    return np.array(made)


SIZES = pytest.mark.parametrize("size", [(64, 64), (48, 80), (61, 43)])


@SIZES
def test_pixels_come_from_where_the_grid_says(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "TURN", "ZOOM", "SHIFT", "BEND")
    crops = smooth(3, *size)
    moved = move(crops)
    assert moved.crops.shape == crops.shape
    assert moved.grid.shape == (3, *size, 2)
    errors = np.abs(moved.crops.numpy() - sampled(crops, *pixels(moved.grid)))
    assert errors.max() < 1  # cubic interpolation is no spline
    assert errors.mean() < 0.25
    assert (moved.crops - crops).abs().mean() > 5  # it did move


def test_without_any_change_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    crops = torch.rand(2, 3, 50, 70) * 255
    moved = move(crops)
    torch.testing.assert_close(moved.crops, crops, rtol=0, atol=0.02)
    right, down, _, _ = displacements(moved.grid)
    assert max(np.abs(right).max(), np.abs(down).max()) < 1e-4


@SIZES
def test_turns_are_turns_of_squares(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the crop's shape, and by no more than three degrees."""
    only(monkeypatch, "TURN")
    right, down, x, y = displacements(move(smooth(40, *size)).grid)
    angles = np.arcsin((x * down - y * right).sum((1, 2)) / (x**2 + y**2).sum())
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    np.testing.assert_allclose(right, cos * x - sin * y - x, atol=2e-3)
    np.testing.assert_allclose(down, sin * x + cos * y - y, atol=2e-3)
    assert np.abs(angles).max() <= np.radians(3) + 1e-5
    assert angles.min() < -np.radians(2)
    assert angles.max() > np.radians(2)


def test_zooms_shifts_and_bends_stay_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = smooth(40, 48, 80)
    with monkeypatch.context() as patch:
        only(patch, "ZOOM")
        right, down, x, y = displacements(move(crops).grid)
        scales = (right * x + down * y).sum((1, 2)) / (x**2 + y**2).sum()
        np.testing.assert_allclose(right, scales[:, None, None] * x, atol=2e-3)
        np.testing.assert_allclose(down, scales[:, None, None] * y, atol=2e-3)
        assert -0.04 - 1e-5 <= scales.min() < -0.02
        assert 0.02 < scales.max() <= 0.04 + 1e-5
    with monkeypatch.context() as patch:
        only(patch, "SHIFT")
        right, down, _, _ = displacements(move(crops).grid)
        for along in (right, down):
            assert np.ptp(along, axis=(1, 2)).max() < 1e-3  # all pixels of a crop alike
            assert -8 - 1e-3 <= along.min() < -4
            assert 4 < along.max() <= 8 + 1e-3
        assert np.abs(np.corrcoef(right[:, 0, 0], down[:, 0, 0])[0, 1]) < 0.5
    with monkeypatch.context() as patch:
        only(patch, "BEND")
        right, down, _, _ = displacements(move(crops).grid)
        for along in (right, down):
            # Cubic interpolation may go beyond its points: by 1.375 in each direction at most.
            assert 2 < np.abs(along).max() <= 3 * 1.375**2
            assert np.ptp(along, axis=(1, 2)).min() > 1  # each pixel its own way
            # Smoothly: as steep as it gets between points that are a fifth of the crop apart.
            assert np.abs(np.gradient(along, axis=(1, 2))).max() < 3 * 3 * 1.375 / (48 / 5)


def test_light_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = smooth(40, 64, 64)
    with monkeypatch.context() as patch:
        only(patch, "GAIN", "OFFSET")
        moved = move(crops).crops
    gains, offsets = np.array(
        [
            np.polyfit(before.flatten().numpy(), after.flatten().numpy(), 1)
            for before, after in zip(crops, moved, strict=True)
        ]
    ).T
    assert np.abs(gains - 1).max() <= 0.05 + 1e-4
    assert np.abs(offsets).max() <= 6 + 1e-2
    assert np.ptp(gains) > 0.06
    assert np.ptp(offsets) > 7
    expected = crops * torch.tensor(gains).view(-1, 1, 1, 1) + torch.tensor(offsets).view(
        -1, 1, 1, 1
    )
    assert (moved - expected.clamp(0, 255)).abs().max() < 0.05
    with monkeypatch.context() as patch:
        only(patch, "NOISE")
        noise = (move(crops).crops - crops).numpy()
    sizes = noise.std((1, 2, 3))
    assert sizes.max() <= 4 * 1.05
    assert sizes.max() > 2.5
    assert sizes.min() < 1.5  # some crops have little
    assert np.abs(noise.mean((1, 2, 3))).max() < 0.25
    loudest = noise[sizes.argmax()]
    for one, other in ((loudest[0], loudest[1]), (loudest[:, 1:], loudest[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05  # each pixel its own


def test_levels_stay_levels() -> None:
    crops = torch.cat([torch.zeros(4, 3, 40, 60), torch.full((4, 3, 40, 60), 255.0)])
    crops[..., ::7] = 255 - crops[..., ::7]
    moved = move(crops).crops
    assert moved.min() == 0
    assert moved.max() == 255


def test_chance_is_torchs_own() -> None:
    """So a run that goes on from a checkpoint moves the crops as it would have."""
    crops = smooth(2, 40, 40)
    torch.manual_seed(3)
    one, two = move(crops), move(crops)
    torch.manual_seed(3)
    again = move(crops)
    assert torch.equal(one.crops, again.crops)
    assert torch.equal(one.grid, again.grid)
    assert not torch.equal(one.grid, two.grid)


@pytest.mark.parametrize("paint", [lambda x: x, lambda x: 255 - x, lambda x: 0.3 * x + 40])
def test_what_paints_each_pixel_by_itself_is_steady(
    paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "TURN", "ZOOM", "SHIFT", "BEND")
    crops = smooth(4, 60, 72)
    moved = move(crops)
    assert temporal_loss(paint(crops), paint(moved.crops), moved.grid).max() < 1e-4
    # Around crops that were cut out less is known: interpolation at their edge, and no more.
    inside = (..., slice(10, -10), slice(10, -10))
    cut = temporal_loss(paint(crops)[inside], paint(moved.crops)[inside], moved.grid, 10)
    assert cut.max() < 0.1
    # A pattern that stays where it is when the scene moves does not pass.
    pattern = 20 * torch.sin(torch.arange(72.0))
    held = temporal_loss(paint(crops) + pattern, paint(moved.crops) + pattern, moved.grid)
    assert held.min() > 20


def by_hand(before: Values, after: Values, down: int, right: int) -> float:
    """The loss of one crop, [3, H, W], whose pixels were `down` and `right` of where they are."""
    _, height, width = before.shape
    total, places = 0.0, 0
    for row in range(0, height - 1, 2):
        for column in range(0, width - 1, 2):
            for channel in range(3):
                found = 0.0
                for y in (row, row + 1):
                    for x in (column, column + 1):
                        if 0 <= y + down < height and 0 <= x + right < width:
                            found += after[channel, y, x] - before[channel, y + down, x + right]
                total += (found / 4) ** 2
                places += 1
    return total / places


@settings(max_examples=25)
@given(
    st.tuples(st.integers(4, 13), st.integers(4, 13)),
    st.integers(-3, 3),
    st.integers(-3, 3),
    st.integers(0, 5),
)
def test_whole_pixels_against_a_plain_loop(
    size: tuple[int, int], down: int, right: int, context: int
) -> None:
    rng = np.random.default_rng(0)
    before, after = rng.uniform(0, 255, (2, 2, 3, *size))
    rows, columns = np.indices((size[0] + 2 * context, size[1] + 2 * context))[:, None].repeat(2, 1)
    # The second crop moves the other way.
    ways = np.array([1, -1])[:, None, None]
    grid = as_grid(columns + right * ways, rows + down * ways)
    losses = temporal_loss(
        torch.from_numpy(before).float(), torch.from_numpy(after).float(), grid, context
    )
    expected = [
        by_hand(before[k], after[k], way * down, way * right) for k, way in ((0, 1), (1, -1))
    ]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (52, 76)])
def test_pictures_within_a_margin_against_splines(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid is that of the crops with their contexts, the pictures have none."""
    only(monkeypatch, "TURN", "ZOOM", "SHIFT", "BEND")
    context, crops = 9, smooth(3, height, width)
    grid = move(crops).grid
    inside = slice(context, -context)
    before = smooth(5, height, width)[2:, :, inside, inside]
    after = smooth(9, height, width)[6:, :, inside, inside]
    columns, rows = (axis[:, inside, inside] - context for axis in pixels(grid))
    seen = (columns > -0.5) & (columns < width - 2 * context - 0.5)
    seen &= (rows > -0.5) & (rows < height - 2 * context - 0.5)
    assert 0.5 < seen.mean() < 1
    difference = (after.numpy() - sampled(before, columns, rows)) * seen[:, None]
    blocks = difference.reshape(3, 3, before.shape[2] // 2, 2, before.shape[3] // 2, 2)
    expected = np.square(blocks.mean((3, 5))).mean((1, 2, 3))
    losses = temporal_loss(before, after, grid, context)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=0.01)


def test_what_was_out_of_sight_does_not_count() -> None:
    before, after = smooth(2, 20, 24).requires_grad_(), smooth(2, 20, 24).flip(3).requires_grad_()
    rows, columns = np.indices((20, 24), np.float64)[:, None].repeat(2, 1)
    grid = as_grid(columns + 6, rows - 4)  # the last 6 columns and the first 4 rows are new
    loss = temporal_loss(before, after, grid)
    with torch.no_grad():
        changed = after.clone()
        changed[..., :4, :] = 255
        changed[..., -6:] = 0
    assert torch.equal(temporal_loss(before, changed, grid), loss)
    one, other = torch.autograd.grad(loss.sum(), (before, after))
    assert (other[..., :4, :] == 0).all()
    assert (other[..., -6:] == 0).all()
    assert (other[..., 4:, :-6] != 0).float().mean() > 0.9
    # What left the crop is not asked for, either.
    assert one[..., :6].abs().max() < 1e-4 * one.abs().max()
    assert one[..., -4:, :].abs().max() < 1e-4 * one.abs().max()
    assert (one[..., :-4, 6:] != 0).float().mean() > 0.9
    # A step against the gradient of either makes the two more alike.
    for picture, gradient in ((0, one), (1, other)):
        pair = [before.detach(), after.detach()]
        pair[picture] = pair[picture] - 5 * gradient / gradient.abs().max()
        assert (temporal_loss(pair[0], pair[1], grid) < loss).all()


def test_blur_below_two_pixels_is_forgiven() -> None:
    """What only rearranges levels within blocks of 2×2 is no flicker."""
    before = smooth(1, 16, 16)
    checks = 30.0 * (1 - 2 * (torch.arange(16) % 2))
    rows, columns = np.indices((16, 16), np.float64)[:, None]
    still = as_grid(columns, rows)
    assert temporal_loss(before, before + checks, still).max() < 1e-4
    assert temporal_loss(before, before + 30.0, still) == pytest.approx(900, rel=1e-4)


def test_a_quarter_of_a_batch_moves() -> None:
    assert [moving(count) for count in (1, 2, 4, 5, 8, 9, 16)] == [1, 1, 1, 2, 2, 3, 4]


@pytest.fixture(scope="module")
def objective(style_path: Path) -> PerceptualLoss:
    config = ObjectiveConfig(style_loss="gram", style_size=64)
    return build_objective([load_style(style_path)], (), config, torch.device("cpu"))


def make_network(config: TransformerConfig = SUBPIXEL) -> TransformerNet:
    torch.manual_seed(0)
    return TransformerNet(config)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_a_step_adds_it_to_the_other_losses(
    parts: int, objective: PerceptualLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "fast_bf16", lambda _: False)
    side = 64 + 2 * SUBPIXEL.context
    batch = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    terms, gradients = {}, {}
    for weight in (0.0, 5e3, 1e4):  # its gradient is as large as the others'
        update = TrainStep(
            make_network(), objective, context=SUBPIXEL.context, temporal_weight=weight
        )
        update.parts = parts
        torch.manual_seed(5)
        terms[weight] = update(batch, 8, 0, 0.0)[0][:7].tolist()
        gradients[weight] = torch.cat([g.flatten().clone() for g in update.gradients])
    for content, style, tv, taught, steady, checkerboard, total in terms.values():
        assert total == pytest.approx(content + style + tv + taught + steady, rel=1e-5)
        assert checkerboard == 0
    assert terms[0.0][4] == 0
    assert terms[5e3][4] > 0
    assert terms[1e4][4] == pytest.approx(2 * terms[5e3][4], rel=1e-4)
    assert terms[5e3][:4] == pytest.approx(terms[0.0][:4], rel=1e-5)  # the others are as without
    added = [gradients[weight] - gradients[0.0] for weight in (5e3, 1e4)]
    assert added[0].norm() > 0
    assert (added[1] - 2 * added[0]).norm() < 1e-3 * added[1].norm()


def test_the_loss_of_a_step_is_that_of_its_pictures(
    objective: PerceptualLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first quarter of the crops, repainted amid what surrounds them, before and after."""
    monkeypatch.setattr(update_module, "fast_bf16", lambda _: False)
    context = SUBPIXEL.context
    side = 64 + 2 * context
    batch = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), np.uint8)
    network = make_network()
    update = TrainStep(network, objective, context=context, temporal_weight=7.0)
    torch.manual_seed(5)
    found = update(batch, 5, 0, 0.0)[0][4].item()
    torch.manual_seed(5)
    crops = torch.from_numpy(batch[:2]).permute(0, 3, 1, 2).float()
    moved = move(crops)
    with torch.no_grad():
        pictures = [network(x, has_context=True) for x in (crops, moved.crops)]
    losses = temporal_loss(*pictures, moved.grid, context)
    assert found == pytest.approx(7.0 * losses.mean().item(), rel=1e-4)


def test_weights_that_suit_the_designs(objective: PerceptualLoss, style_path: Path) -> None:
    """Fast networks are for films; those of Johnson et al. train as they did."""
    johnson = TransformerConfig(width=4, blocks=1)
    kinds: list[tuple[TransformerConfig, float | None, bool]] = [
        (SUBPIXEL, None, True),
        (SUBPIXEL, 0.0, False),
        (johnson, None, False),
        (johnson, 20.0, True),
    ]
    for network, weight, expected in kinds:
        steps = steps_of(
            objective,
            make_network(network),
            small_run(style_path, None, steps=3, temporal_weight=weight),
        )
        assert len(steps) == 3
        for step in steps:
            assert (step.temporal_loss > 0) is expected
            assert expected or step.temporal_loss == 0
            parts = step.content_loss + step.style_loss + step.tv_loss + step.temporal_loss
            assert step.total_loss == pytest.approx(parts + step.checkerboard_loss, rel=1e-5)
    config = TrainConfig(style=(style_path,))
    weights = {
        name: temporal_weight(config, preset.architecture) for name, preset in PRESETS.items()
    }
    assert weights["quality"] == 0
    assert min(weights["fast"], weights["balanced"]) > 0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_makes_no_sense(weight: float, style_path: Path) -> None:
    with pytest.raises(UsageError, match="temporal weight is"):
        small_run(style_path, None, temporal_weight=weight)


def test_a_run_resumed_moves_its_crops_as_one_never_stopped(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "SNAPSHOT_STEPS", 2)
    options = partial(small_run, style_path, steps=5, temporal_weight=300.0, save_every=0.0)
    whole = train_style(options(tmp_path / "whole"))

    def stop(step: TrainProgress) -> None:
        if step.step == 4:
            raise KeyboardInterrupt

    assert train_style(options(tmp_path / "cut"), stop).interrupted
    torch.manual_seed(99)  # chance goes on from the checkpoint, not from where this process is
    steps: list[int] = []
    resumed = resume_style(tmp_path / "cut", lambda step: steps.append(step.step))
    assert steps == [3, 4, 5]
    one, other = map(weights_of, (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    logs = [read_log(result.folder / "log.csv") for result in (whole, resumed)]
    for rows in logs:
        assert [row.step for row in rows] == [1, 2, 3, 4, 5]
        for row in rows:
            assert row.temporal_loss > 0
            parts = row.content_loss + row.style_loss + row.tv_loss + row.temporal_loss
            assert row.total_loss == pytest.approx(parts + row.checkerboard_loss, rel=1e-4)
        assert [row.checkerboard_loss > 0 for row in rows] == [False] * 4 + [True]
    for name in ("temporal_loss", "checkerboard_loss"):
        assert [getattr(r, name) for r in logs[0]] == [getattr(r, name) for r in logs[1]]
    for result in (whole, resumed):
        saved = tomllib.loads((result.folder / "run.toml").read_text())
        assert saved["temporal_weight"] == 300


def weights_of(result: TrainResult) -> dict[str, Tensor]:
    return load_checkpoint(result.checkpoint).network.state_dict()

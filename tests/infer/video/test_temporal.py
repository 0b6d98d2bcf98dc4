"""Frames one after another: statistics that are held, and pictures that stand still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nst.errors import UsageError
from nst.infer.runtime import tiles as tiles_module
from nst.infer.runtime.stylizer import FrameStatistics, Stylizer
from nst.infer.runtime.tiles import tiles
from nst.infer.video.temporal import CUT, FRESH, SMOOTHING, TemporalStylizer
from nst.io.images import Array
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.export.export import export_precisions


class Fake:
    """Stands in for a `Stylizer` and remembers what it was asked.

    Args:
        paint: stylizes a frame.
        statistics: of the frames, one after another; None for a model without.
    """

    name, keep_color = "Fake", None

    def __init__(
        self,
        paint: Callable[[Array], Array] = lambda image: image,
        statistics: list[FrameStatistics] | None = None,
    ) -> None:
        self.paint, self.statistics = paint, statistics
        self.held: list[FrameStatistics | None] = []
        self.strengths: list[float] = []

    def frame(
        self, image: Array, strength: float = 1.0, held: FrameStatistics | None = None
    ) -> tuple[Array, FrameStatistics | None]:
        own = None if self.statistics is None else self.statistics[len(self.held)]
        self.held.append(None if held is None else held.copy())
        self.strengths.append(strength)
        return self.paint(image), own


def make_steady(fake: Any, *, stabilize: bool = False) -> TemporalStylizer:
    return TemporalStylizer(fake, stabilize=stabilize)


def some_statistics(count: int, channels: int = 5) -> list[FrameStatistics]:
    rng = np.random.default_rng(0)
    return list(rng.uniform(0.2, 3, (count, 1, channels)).astype(np.float32))


def grey(level: int, size: tuple[int, int] = (40, 56)) -> Array:
    return np.full((*size, 3), level, np.uint8)


def assert_held(found: list[FrameStatistics | None], seen: list[FrameStatistics]) -> None:
    """Nothing at first; then the mean of all, until the newest would have less than a tenth."""
    assert found[0] is None
    mean = seen[0].astype(np.float64)
    for number, held in enumerate(found[1:], 1):
        assert held is not None
        assert held.dtype == np.float32
        assert held.shape == seen[0].shape
        if number <= 10:
            mean = np.mean(seen[:number], axis=0)
        else:
            mean = 0.9 * mean + 0.1 * seen[number - 1]
        np.testing.assert_allclose(held, mean, rtol=1e-5)


def test_statistics_are_a_running_mean() -> None:
    assert SMOOTHING == 0.1
    seen = some_statistics(25)
    fake = Fake(statistics=seen)
    kept = [value.copy() for value in seen]
    steady = make_steady(fake)
    for _ in seen:
        steady(grey(100))
    assert_held(fake.held, seen)
    np.testing.assert_array_equal(seen, kept)  # a model's own arrays are left alone


def test_one_odd_frame_hardly_counts() -> None:
    """A flash, a hand before the lens: after ten frames a tenth of what it would do by itself."""
    usual, odd = np.ones((1, 3), np.float32), np.full((1, 3), 3, np.float32)
    fake = Fake(statistics=[usual] * 15 + [odd] + [usual] * 20)
    steady = make_steady(fake)
    for _ in range(36):
        steady(grey(100))
    off = [float(np.abs(held - usual).max()) for held in fake.held if held is not None]
    assert max(off) == pytest.approx(0.2, rel=1e-3)
    assert off[-1] < 0.2 * max(off)


def test_a_cut_begins_again() -> None:
    seen = some_statistics(12)
    fake = Fake(statistics=seen)
    steady = make_steady(fake)
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 90, (40, 56, 3), np.uint8), grey(200), grey(90)]
    for image in scenes:
        for _ in range(4):
            steady(image)
    for first in (0, 4, 8):
        assert_held(fake.held[first : first + 4], seen[first : first + 4])


@pytest.mark.parametrize(("change", "cut"), [(int(CUT) - 1, False), (int(CUT) + 1, True)])
def test_how_great_a_change_is_a_cut(change: int, cut: bool) -> None:
    fake = Fake(statistics=some_statistics(6))
    steady = make_steady(fake)
    for level in (100, 100, 100 + change):
        steady(grey(level))
    assert (fake.held[2] is None) is cut
    # Only changes from one frame to the next count: a slow fade is one scene.
    for k in (1, 2, 3):
        steady(grey(100 + change - k * (int(CUT) - 2)))
    assert all(held is not None for held in fake.held[3:])


def test_a_small_thing_that_moves_is_no_cut() -> None:
    fake = Fake(statistics=some_statistics(8))
    steady = make_steady(fake)
    for k in range(8):
        image = grey(30, (96, 128))
        image[20:60, 12 * k : 12 * k + 30] = 250
        steady(image)
    assert all(held is not None for held in fake.held[1:])


@pytest.mark.parametrize("stabilize", [False, True])
def test_frames_of_another_size(stabilize: bool) -> None:
    """A camera that is turned: nothing is mixed that does not fit."""
    fake = Fake(statistics=some_statistics(4))
    steady = make_steady(fake, stabilize=stabilize)
    rng = np.random.default_rng(0)
    for size in ((40, 56), (56, 40), (41, 57), (20, 28)):
        image = rng.integers(90, 110, (*size, 3), np.uint8)
        np.testing.assert_array_equal(steady(image), image)


def test_reset_forgets() -> None:
    seen = some_statistics(6)
    fake = Fake(statistics=seen)
    steady = make_steady(fake, stabilize=True)
    for level in (100, 101, 102):
        steady(grey(level))
    steady.reset()
    np.testing.assert_array_equal(steady(grey(103)), grey(103))
    for level in (104, 105):
        steady(grey(level))
    assert_held(fake.held[:3], seen[:3])
    assert_held(fake.held[3:], seen[3:])


def test_strength_passes_through(photograph: Array) -> None:
    fake = Fake()
    steady = make_steady(fake)
    steady(photograph)
    steady(photograph, 0.3)
    steady(photograph, strength=0)
    assert fake.strengths == [1, 0.3, 0]
    assert fake.held == [None] * 3  # this model has no statistics
    assert (steady.name, steady.keep_color) == ("Fake", None)


def test_a_new_strength_shows_at_once() -> None:
    """A slider may move during a live session: earlier frames leave no trail."""
    levels = iter([200, 200, 60, 60])
    steady = make_steady(Fake(lambda image: np.full_like(image, next(levels))), stabilize=True)
    found = [steady(grey(100), strength) for strength in (1.0, 1.0, 0.3, 0.3)]
    assert [image.mean() for image in found] == [200, 200, 60, 60]


class Noisy:
    """Paints a scene with noise of its own on each frame."""

    def __init__(self, sigma: float = 12) -> None:
        self._rng, self._sigma = np.random.default_rng(1), sigma

    def __call__(self, image: Array) -> Array:
        noise = self._rng.normal(0, self._sigma, image.shape)
        return np.clip(image.astype(float) + noise, 0, 255).astype(np.uint8)


def test_where_nothing_moves_noise_falls() -> None:
    image = np.tile(np.linspace(60, 190, 64, dtype=np.uint8)[:, None, None], (1, 80, 3))
    spread = {}
    for stabilize in (False, True):
        steady = make_steady(Fake(Noisy()), stabilize=stabilize)
        pictures = np.array([steady(image) for _ in range(60)], np.float64)[20:]
        spread[stabilize] = pictures.std((0, 2)).mean()  # a row has one level
        # It is still the picture, no darker and no lighter.
        np.testing.assert_allclose(pictures.mean((0, 2)), image.mean(1), atol=1.5)
    # Of a running mean with a share s of the newest the variance is s / (2 - s).
    share = round(255 * FRESH) / 255
    assert spread[True] / spread[False] == pytest.approx(np.sqrt(share / (2 - share)), rel=0.05)


def test_noise_of_the_camera_is_no_motion() -> None:
    """Two levels of it, which a stylizer makes more of."""
    rng = np.random.default_rng(0)
    frames = [
        (120 + rng.normal(0, 2, (64, 80, 3))).clip(0, 255).astype(np.uint8) for _ in range(40)
    ]
    harder = Fake(lambda image: (128 + 6 * (image.astype(int) - 120)).clip(0, 255).astype(np.uint8))
    plain, stable = (
        np.array([steady(frame) for frame in frames], float)[15:].std(0).mean()
        for steady in (make_steady(harder), make_steady(harder, stabilize=True))
    )
    assert stable < 0.4 * plain


def test_where_a_frame_changes_the_newest_picture_shows() -> None:
    """And where it does not, the picture is held, in the same frame."""
    noisy = Noisy()
    newest: list[Array] = []
    fake = Fake(lambda image: newest.append(noisy(image)) or newest[-1])
    steady = make_steady(fake, stabilize=True)
    rng = np.random.default_rng(0)
    for _ in range(10):
        image = grey(100, (80, 1600))
        # Blocks that change by more than a blur of five hides, on a twentieth of the frame.
        image[:, -80:] = np.kron(rng.integers(0, 2, (2, 2)), np.full((40, 40), 60))[..., None] + 40
        image[:, -80:] += np.uint8(40) * np.uint8(len(newest) % 2)
        found = steady(image)
    np.testing.assert_array_equal(found[:, -60:], newest[-1][:, -60:])
    left = np.abs(found[:, :50].astype(int) - newest[-1][:, :50])
    assert left.mean() > 4


def test_where_the_camera_moves_nothing_is_blended(photograph: Array) -> None:
    """Not even what hardly differs from what was there before: strokes on it would smear."""
    noisy = Noisy()
    newest: list[Array] = []
    fake = Fake(lambda image: newest.append(noisy(image)) or newest[-1])
    steady = make_steady(fake, stabilize=True)
    wide = np.hstack([grey(90, (96, 60)), photograph[:96, :100], grey(90, (96, 60))])
    for k in range(0, 40, 8):
        found = steady(np.ascontiguousarray(wide[:, k : k + 150]))
        np.testing.assert_array_equal(found, newest[-1])


def test_what_moves_leaves_no_ghost() -> None:
    """A bright square before a dark ground: where it was, the ground shows at once."""
    steady = make_steady(Fake(), stabilize=True)
    for k in range(6):
        image = grey(40, (96, 160))
        image[32:64, 16 * k : 16 * k + 32] = 220
        found = steady(image)
        np.testing.assert_array_equal(found[32:64], image[32:64])


def test_no_ghost_after_a_cut() -> None:
    steady = make_steady(Fake(Noisy(5)), stabilize=True)
    for _ in range(8):
        steady(grey(60))
    found = steady(grey(180))
    assert abs(found.mean() - 180) < 1
    assert found.std() == pytest.approx(5, rel=0.1)  # of one picture, not of several


@settings(max_examples=60)
@given(st.integers(0, 255), st.integers(0, 255))
def test_a_picture_that_stands_still_is_reached(first: int, last: int) -> None:
    """Within four levels, which is what whole levels leave of a fifth at a time."""
    levels = iter([first] + [last] * 60)
    steady = make_steady(Fake(lambda image: np.full_like(image, next(levels))), stabilize=True)
    found = [int(steady(grey(100, (8, 12))).max()) for _ in range(61)]
    assert found[0] == first
    assert abs(found[-1] - last) <= 4
    steps = np.diff(found) * (1 if last >= first else -1)
    assert (steps >= 0).all()  # it never swings
    # At first by a fifth of the way.
    assert found[1] == pytest.approx(first + FRESH * (last - first), abs=1)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_frame_and_a_picture_that_stay_stay_as_they_are(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), np.uint8)
    steady = make_steady(Fake(lambda image: 255 - image), stabilize=True)
    for _ in range(4):
        np.testing.assert_array_equal(steady(image), 255 - image)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (5, 3), (4, 4), (33, 47), (2, 300)])
def test_tiny_and_odd_frames(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    steady = make_steady(Fake(Noisy()), stabilize=True)
    for _ in range(3):
        image = rng.integers(90, 110, (*size, 3), np.uint8)
        before = image.copy()
        found = steady(image)
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(image, before)


def test_pictures_handed_out_stay_as_they_were() -> None:
    """Whoever shows or encodes them may be slow."""
    steady = make_steady(Fake(Noisy()), stabilize=True)
    found = [steady(grey(100)) for _ in range(3)]
    kept = [image.copy() for image in found]
    for _ in range(3):
        steady(grey(101))
    np.testing.assert_array_equal(found, kept)


CONFIG = TransformerConfig(16, 2, "subsampled_rms", "subpixel")


@pytest.fixture(scope="module")
def stylizer(tmp_path_factory: pytest.TempPathFactory) -> Stylizer:
    """Random weights, under which statistics count."""
    torch.manual_seed(1)
    net = TransformerNet(CONFIG)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.3, std=0.3)
    torch.nn.init.zeros_(net.output.bias)
    torch.nn.init.normal_(net.output.weight, std=0.1)
    path = tmp_path_factory.mktemp("steady") / "sampled.onnx"
    export_precisions(net.eval(), {"fp32": path}, {"title": "S"}, calibration=lambda: [])
    return Stylizer(path, provider="cpu")


def test_a_frame_under_its_own_statistics_is_as_without(
    stylizer: Stylizer, photograph: Array
) -> None:
    stylized, own = stylizer.frame(photograph)
    assert own is not None
    np.testing.assert_array_equal(stylized, stylizer(photograph))
    np.testing.assert_array_equal(own, stylizer.statistics(photograph))
    again, same = stylizer.frame(photograph, held=own)
    np.testing.assert_array_equal(again, stylized)
    np.testing.assert_array_equal(same, own)
    # Statistics of another frame change the result; the returned ones are its own all the same.
    other = stylizer.statistics(255 - photograph // 2)
    changed, returned = stylizer.frame(photograph, held=other)
    assert (changed != stylized).mean() > 0.3
    assert returned is not None
    assert other is not None
    np.testing.assert_allclose(returned[:, :16], own[:, :16], rtol=1e-5)  # of the first layer
    assert np.abs(other / own - 1).max() > 0.05
    blended, _ = stylizer.frame(photograph, 0.25, other)
    expected = 0.25 * changed + 0.75 * photograph
    np.testing.assert_allclose(blended, expected, atol=0.51)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_frame_that_is_none(stylizer: Stylizer, strength: float) -> None:
    with pytest.raises(UsageError, match="give uint8"):
        stylizer.frame(np.zeros((40, 40, 1), np.uint8), strength)
    with pytest.raises(UsageError, match="strength is"):
        stylizer.frame(grey(100), strength + 1.5)


def test_a_large_frame_goes_in_tiles_under_the_statistics_that_are_held(
    stylizer: Stylizer, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.tile(photograph, (2, 2, 1))[:181, :230]
    other = stylizer.statistics(255 - big // 2)
    whole = [stylizer.frame(big, held=held) for held in (None, other)]
    monkeypatch.setattr(tiles_module, "TILE_SIDE", 64)
    assert stylizer.receptive_radius is not None
    assert len(tiles(big.shape[:2], stylizer.receptive_radius)) == 12
    tiled = [stylizer.frame(big, held=held) for held in (None, other)]
    own = stylizer.statistics(big)
    for (one, _), (found, returned) in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(found, one)
        np.testing.assert_array_equal(returned, own)
    assert (tiled[0][0] != tiled[1][0]).mean() > 0.3
    np.testing.assert_array_equal(stylizer.frame(big, held=own)[0], tiled[0][0])


def test_a_model_without_statistics_tells_none(model_path: Path, photograph: Array) -> None:
    with Stylizer(model_path, provider="cpu") as stylizer:
        stylized, own = stylizer.frame(photograph)
        assert own is None
        np.testing.assert_array_equal(stylized, stylizer(photograph))
        steady = TemporalStylizer(stylizer)
        for image in (photograph, photograph // 2, photograph):
            np.testing.assert_array_equal(steady(image), stylizer(image))


@pytest.mark.parametrize("stabilize", [False, True])
def test_equal_frames_give_equal_pictures(
    stabilize: bool, stylizer: Stylizer, photograph: Array
) -> None:
    steady = TemporalStylizer(stylizer, stabilize=stabilize)
    expected = stylizer(photograph)
    for _ in range(3):
        # A mean of the same numbers may be off by a rounding.
        assert np.abs(steady(photograph).astype(int) - expected).max() <= 1
    assert (steady.name, steady.keep_color) == ("S", None)


def test_what_enters_a_scene_does_not_change_the_rest_of_it(
    stylizer: Stylizer, photograph: Array
) -> None:
    """Which is what statistics are held for."""
    entered = photograph.copy()
    entered[:40, :40] = [255, 0, 0]
    far = (slice(72, None), slice(72, None))
    assert stylizer.receptive_radius is not None
    assert stylizer.receptive_radius <= 72 - 40
    steady = TemporalStylizer(stylizer)
    for _ in range(10):
        before = steady(photograph)
    held = steady(entered)[far].astype(int) - before[far]
    alone = stylizer(entered)[far].astype(int) - stylizer(photograph)[far]
    assert np.abs(held).max() <= 1
    assert np.abs(alone).mean() > 3 * max(np.abs(held).mean(), 0.01)


def test_without_strength_a_frame_is_given_back(stylizer: Stylizer, photograph: Array) -> None:
    steady = TemporalStylizer(stylizer)
    np.testing.assert_array_equal(steady(photograph, 0), photograph)
    # And the style that comes back finds nothing that it would have to forget.
    np.testing.assert_array_equal(steady(photograph), stylizer(photograph))

"""Numbers for the look: against SciPy, and where the answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from nst.io.images import Array, resize_short
from nst.train.evaluation.look import Look, color_distance, edges_kept, grain, look, mean_look


def test_the_distance_of_colours(photograph: Array) -> None:
    """Places and size do not count; a shift of all levels counts as far as it is."""
    base = (photograph // 2).astype(np.uint8)
    assert color_distance(base + 100, base) == pytest.approx(100)
    against_scipy = [
        wasserstein_distance(photograph[..., c].ravel(), base[..., c].ravel()) for c in range(3)
    ]
    assert color_distance(photograph, base) == pytest.approx(np.mean(against_scipy))
    shuffled = np.random.default_rng(0).permutation(photograph.reshape(-1, 3))
    assert color_distance(shuffled.reshape(photograph.shape), photograph) == 0
    assert color_distance(resize_short(photograph, 40), photograph) < 6


def test_edges_kept(photograph: Array) -> None:
    assert edges_kept(photograph, photograph) == pytest.approx(1)
    assert edges_kept(255 - photograph, photograph) == pytest.approx(1, abs=0.01)
    darker = (photograph // 2).astype(np.uint8)
    assert edges_kept(darker, photograph) > 0.97
    blurred = cv2.GaussianBlur(photograph, (0, 0), 3)
    noise = np.random.default_rng(0).integers(0, 256, photograph.shape, np.uint8)
    kept = [edges_kept(np.asarray(x), photograph) for x in (darker, blurred, noise)]
    assert kept == sorted(kept, reverse=True)
    grey = np.full_like(photograph, 90)
    assert edges_kept(grey, photograph) == 0
    assert edges_kept(grey, grey) == 1


def test_grain_is_what_flat_areas_gain() -> None:
    """Dots of 20 levels on the flat half count; the same on a textured half do not."""
    rng = np.random.default_rng(0)
    photograph = np.full((64, 128, 3), 100, np.uint8)
    photograph[:, 64:] = rng.integers(0, 256, (64, 64, 1), np.uint8)
    dots = np.zeros((64, 128, 1), np.uint8)
    dots[::4, ::4] = 20
    left, right = dots.copy(), dots.copy()
    left[:, 50:], right[:, :78] = 0, 0
    clean = grain(photograph, photograph)
    # One pixel in sixteen is 20 levels brighter; most of that is finer than the blur.
    assert 0.5 < grain(photograph + left, photograph) - clean < 2 * 20 / 16
    assert grain(photograph + right, photograph) == pytest.approx(clean, abs=0.02)
    textured = np.ascontiguousarray(photograph[:, 70:])
    assert grain(textured, textured) == 0  # nothing is flat


def test_the_nearest_style_counts(photograph: Array) -> None:
    found = look(photograph, photograph, [255 - photograph, photograph])
    assert found.color_distance == 0
    assert found.edges_kept == pytest.approx(1)
    mean = mean_look([found, Look(2, 0, found.grain)])
    assert mean == Look(1, pytest.approx(0.5), pytest.approx(found.grain))

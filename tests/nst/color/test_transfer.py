"""Colour transfer against other implementations and the properties of each method."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import ot
import pytest
from color_images import colorful
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.exposure import match_histograms

import nst.color.pixels as pixels_module
from nst.color.idt import idt
from nst.color.pixels import ColorImage
from nst.color.transfer import (
    METHODS,
    Method,
    cholesky,
    grey,
    histogram,
    keep_color,
    luminance,
    mkl,
    pca,
    reinhard,
    style_in_colors_of,
)
from nst.config import KeepColor
from nst.errors import UsageError
from nst.io.images import Array

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))
LINEAR = {"mkl": mkl, "cholesky": cholesky, "pca": pca}


def moments(image: ColorImage) -> tuple[NDArray[Any], NDArray[Any]]:
    flat = image.reshape(-1, 3).astype(np.float64)
    return flat.mean(0), np.cov(flat.T, bias=True)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("seed", range(4))
def test_linear_methods_give_mean_and_covariance(method: str, seed: int) -> None:
    image, reference = colorful(seed) * 1.0, colorful(seed + 10, 33, 47) * 1.0
    got = moments(LINEAR[method](image, reference))
    for value, wanted in zip(got, moments(reference), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-6)


def test_mkl_is_the_optimal_map_between_gaussians() -> None:
    image, reference = colorful(0) * 1.0, colorful(11) * 1.0
    (mean, covariance), (new_mean, wanted) = moments(image), moments(reference)
    matrix, offset = ot.gaussian.bures_wasserstein_mapping(mean, new_mean, covariance, wanted)
    np.testing.assert_allclose(mkl(image, reference), image @ matrix + offset, atol=1e-6)
    # It moves colours less than the others that reach the same moments.
    moved = {name: np.square(m(image, reference) - image).mean() for name, m in LINEAR.items()}
    assert moved["mkl"] == min(moved.values())


@settings(max_examples=30)
@given(SMALL, SMALL)
def test_histogram_is_scikit_images(image: Array, reference: Array) -> None:
    expected = match_histograms(
        image.astype(np.float64), reference.astype(np.float64), channel_axis=2
    )
    assert np.abs(histogram(image, reference) - expected).max() <= 0.5 + 1e-9
    floats = histogram(image * 1.0, reference / 2)
    np.testing.assert_allclose(
        floats, match_histograms(image * 1.0, reference / 2, channel_axis=2), atol=1e-9
    )


@settings(max_examples=25)
@given(st.integers(0, 99))
def test_luminance_leaves_the_chrominance(seed: int) -> None:
    image, reference = colorful(seed) * 1.0, colorful(seed + 100) * 1.0
    result = luminance(image, reference)
    luma = np.array([0.299, 0.587, 0.114])
    for channel in (0, 2):  # Cr and Cb are multiples of these
        before, after = (i[..., channel] - i @ luma for i in (image, result))
        np.testing.assert_allclose(after, before, atol=1e-9)
    for statistic in (np.mean, np.std):
        assert statistic(result @ luma) == pytest.approx(statistic(reference @ luma), rel=1e-6)


@pytest.mark.parametrize("space", ["lalphabeta", "cielab"])
def test_reinhard_gives_mean_and_deviation_in_its_space(space: Any) -> None:
    image, reference = colorful(1) / 2.0 + 60, colorful(2, 31, 37) / 2.0 + 60

    def axes(pixels: ColorImage) -> NDArray[Any]:
        if space == "cielab":
            lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
            return lab.reshape(-1, 3)
        cones = np.array(
            [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
        )
        x, y, z = np.log10(pixels.reshape(-1, 3) @ cones.T).T
        return np.stack([(x + y + z) / 3**0.5, (x + y - 2 * z) / 6**0.5, (x - y) / 2**0.5], 1)

    got, wanted = axes(reinhard(image, reference, space=space)), axes(reference)
    tolerance = 0.6 if space == "cielab" else 1e-5  # sRGB ends where CIELAB goes on
    np.testing.assert_allclose(got.mean(0), wanted.mean(0), atol=tolerance)
    np.testing.assert_allclose(got.std(0), wanted.std(0), atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_an_image_is_its_own_reference_without_change(method: str, kind: Any) -> None:
    image = colorful(7).astype(kind)
    result = METHODS[method](image, image)
    assert result.dtype == kind
    np.testing.assert_allclose(result, image, atol=0 if kind is np.uint8 else 0.5)


def degenerate() -> dict[str, Array]:
    """Make images whose colours lie on a point, a line or a plane."""
    ramp = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    flat = np.stack([ramp, ramp[::-1], np.full_like(ramp, 90)], -1)
    return {
        "black": np.zeros((6, 8, 3), np.uint8),
        "white": np.full((6, 8, 3), 255, np.uint8),
        "one colour": np.full((6, 8, 3), (30, 200, 90), np.uint8),
        "one pixel": np.full((1, 1, 3), 77, np.uint8),
        "grey": np.stack([ramp] * 3, -1),
        "plane": flat,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", degenerate())
@pytest.mark.parametrize("second", [*degenerate(), "picture"])
def test_degenerate_images(method: str, first: str, second: str) -> None:
    cases = {**degenerate(), "picture": colorful(8)}
    image, reference = cases[first], cases[second]
    for one, other in ((image, reference), (reference, image)):
        floats = METHODS[method](one * 1.0, other * 1.0)
        assert np.isfinite(floats).all()
        assert np.abs(floats).max() < 1500
        result = METHODS[method](one, other)
        assert result.shape == one.shape
        assert result.dtype == np.uint8
        # As bright as the reference, where clipping and regraining leave it so.
        if method in ("mkl", "pca", "histogram", "idt") and np.ptp(floats) < 255:
            wide = 30 if method == "histogram" and np.ptp(one) < 9 else 2
            if np.ptp(one.reshape(-1, 3), 0).max() > 40:
                assert abs(floats.mean() - other.mean()) < max(wide, 0.2 * np.ptp(other))


@pytest.mark.parametrize("method", ["reinhard", "mkl", "cholesky", "pca", "luminance"])
def test_bands_and_types_make_no_difference(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, reference = colorful(9), colorful(10)
    expected = METHODS[method](image * 1.0, reference * 1.0)
    assert np.abs(METHODS[method](image, reference) - expected.clip(0, 255)).max() <= 0.51
    monkeypatch.setattr(pixels_module, "BAND", 300)
    np.testing.assert_allclose(METHODS[method](image * 1.0, reference * 1.0), expected, atol=1e-6)


def test_keep_color() -> None:
    stylized, photo = colorful(12, 96, 130), colorful(13, 96, 130)
    luma = np.array([0.299, 0.587, 0.114])
    kept = keep_color(stylized, photo, "luminance")
    inside = ((kept > 0) & (kept < 255)).all(2)
    assert inside.mean() > 0.3
    assert np.abs(kept @ luma - stylized @ luma)[inside].max() <= 2
    chroma, wanted = ((i - (i @ luma)[..., None])[inside] for i in (kept, photo))
    assert np.abs(chroma - wanted).max() <= 2
    rest: dict[KeepColor, Method] = {"linear": mkl, "histogram": histogram}
    for how, one in rest.items():
        got = keep_color(stylized, photo, how)
        assert np.abs(got - one(stylized, photo).astype(float)).mean() < 2
        assert np.abs(got.mean((0, 1)) - photo.mean((0, 1))).max() < 4


def test_a_style_in_the_colours_of_photographs() -> None:
    style, photos = colorful(14, 60, 70), [colorful(15, 90, 80), colorful(16, 300, 250) // 2]
    pixels = [p.reshape(-1, 3).astype(float) for p in photos]
    mean = np.mean([p.mean(0) for p in pixels], 0)
    # Both count alike, however large they are.
    covariance = np.mean([(p - mean).T @ (p - mean) / len(p) for p in pixels], 0)
    for how in ("linear", "histogram"):
        got = style_in_colors_of(style, photos, how).reshape(-1, 3).astype(float)
        assert np.abs(got.mean(0) - mean).max() < 3
        assert np.abs(got.std(0) / np.sqrt(covariance.diagonal()) - 1).max() < 0.1
    off = np.cov(style_in_colors_of(style, photos, "linear").reshape(-1, 3).T) - covariance
    assert np.abs(off).max() < 0.1 * covariance.max()
    got = style_in_colors_of(style, photos, "luminance").astype(float)
    assert (got == got[..., :1]).all()
    luma = np.array([0.299, 0.587, 0.114])
    assert got.mean() == pytest.approx(mean @ luma, abs=3)
    assert got[..., 0].std() == pytest.approx(np.sqrt(luma @ covariance @ luma), rel=0.1)
    # A style of one colour, and a grey photograph.
    got = style_in_colors_of(np.full_like(style, 9), [grey(photos[0])], "linear")
    assert np.abs(got - (photos[0] @ luma).mean()).max() <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        np.full((4, 4, 3), np.nan),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_arrays_that_are_no_image_are_refused(method: str, wrong: ColorImage) -> None:
    image = colorful(0)
    for one, other in ((wrong, image), (image, wrong)):
        with pytest.raises(UsageError, match="image"):
            METHODS[method](one, other)
    with pytest.raises(UsageError, match="1 or more"):
        idt(image, image, iterations=0)

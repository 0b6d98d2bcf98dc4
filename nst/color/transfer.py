"""Colour transfer: gives an image the colours of another one.

All methods take an image and a reference, HWC RGB of any sizes, uint8 or float in [0, 255], and
return the recoloured image, of its own shape and type. uint8 is rounded and clipped, float is not.
They never give NaN: constant images, grey ones and those whose colours lie on a plane get as much
of the reference as is possible (its mean, or a range of greys in its tint). They raise `UsageError`
for an array that is not an image.

Hertzmann et al. 2001, "Image analogies". Pitié and Kokaram 2007, "The linear Monge-Kantorovitch
linear colour mapping for example-based colour transfer". Reinhard et al. 2001, "Color transfer
between images".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.color.idt import idt, idt_regrain
from nst.color.pixels import (
    ColorImage,
    Matrix,
    as_float,
    as_type_of,
    check_images,
    histograms,
    in_bands,
)
from nst.config import ColorMethod, KeepColor
from nst.io.images import Array

_LUMA = np.array([[0.299, 0.587, 0.114]])  # BT.601
# RGB to responses of the cones, and their logarithms to luminance, yellow–blue and red–green.
_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LALPHABETA = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
_FAINTEST, _BRIGHTEST = 0.25, 4096.0  # bounds of the responses, for logarithms and exponentials
_PIXELS = 1 << 16  # pixels sampled from a photograph for its colours
_SINGULAR = 1e-9  # share of the total variance below which an axis counts as constant


def reinhard(
    image: ColorImage,
    reference: ColorImage,
    *,
    space: Literal["lalphabeta", "cielab"] = "lalphabeta",
) -> ColorImage:
    """Match mean and deviation of each axis of a decorrelated space (Reinhard et al. 2001).

    If image and reference are equal, the result is the image, except where responses of the cones
    are below a quarter of a level, where logarithms are clipped.

    Args:
        space: Ruderman's lαβ, as in the paper, or CIELAB (D65, sRGB).
    """
    check_images(image, reference)
    there, back = _SPACES[space]

    mean, deviation = _mean_and_deviation(image, there)
    new_mean, new_deviation = _mean_and_deviation(reference, there)
    scale = _ratio(new_deviation, deviation)

    def work(pixels: ColorImage) -> ColorImage:
        return back(_affine(there(pixels), np.diag(scale), mean, new_mean))

    return _recolor(image, work)


def luminance(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Match mean and deviation of the luminance; keep the image's chrominance.

    Hertzmann et al. 2001 remap luminance so. The chrominance is that of Y'CbCr (BT.601); it is
    unchanged unless a channel is clipped.
    """
    check_images(image, reference)

    (mean,), deviation = _mean_and_deviation(image, _luma)
    (new_mean,), new_deviation = _mean_and_deviation(reference, _luma)
    scale = float(_ratio(new_deviation, deviation)[0])

    def work(pixels: ColorImage) -> ColorImage:
        luma = _luma(pixels)
        change = (luma - mean) * scale + new_mean - luma
        # The same change of red, green and blue keeps the chrominance.
        return pixels + cv2.merge([change] * 3)

    return _recolor(image, work)


def histogram(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Match the histogram of each channel."""
    check_images(image, reference)
    if image.dtype == reference.dtype == np.uint8:
        return _match_histograms(image, reference)
    pixels, colors = as_float(image), as_float(reference)
    result = np.empty(image.shape, np.float64)
    for channel in range(3):
        _, places, counts = np.unique(pixels[..., channel], return_inverse=True, return_counts=True)
        values, wanted = np.unique(colors[..., channel], return_counts=True)
        new = np.interp(_cumulative(counts), _cumulative(wanted), values)
        result[..., channel] = new[places].reshape(image.shape[:2])
    return as_type_of(result, image)


def mkl(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Match mean and covariance by the linear map that changes colours least: Monge–Kantorovitch.

    Pitié and Kokaram 2007: T = S^-½ (S^½ R S^½)^½ S^-½ for covariances S and R.
    """
    return _linear(image, reference, _monge)


def cholesky(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Match mean and covariance by triangular maps, which treat red first and blue last.

    Pitié and Kokaram 2007: T = L_R L_S^-1 for the Cholesky factors of the covariances.
    """

    def solve(source: Matrix, wanted: Matrix) -> Matrix:
        return _cholesky(wanted) @ np.linalg.inv(_cholesky(source))

    return _linear(image, reference, solve)


def pca(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Match mean and covariance by mapping principal axes in the order of their variance.

    Pitié and Kokaram 2007: T = P_R D_R^½ D_S^-½ P_S^T. Of an axis's two directions, take the one
    nearer to that of the image's axis.
    """

    def solve(source: Matrix, wanted: Matrix) -> Matrix:
        variances, axes = np.linalg.eigh(source)
        new_variances, new_axes = np.linalg.eigh(wanted)
        new_axes = new_axes * np.where((axes * new_axes).sum(0) < 0, -1, 1)
        known = variances > _SINGULAR * variances.sum()
        ratio = np.where(known, new_variances.clip(0), 0) / np.where(known, variances, 1)
        return new_axes * np.sqrt(ratio) @ axes.T

    return _linear(image, reference, solve)


Method = Callable[[ColorImage, ColorImage], ColorImage]
METHODS: dict[ColorMethod, Method] = {
    "reinhard": reinhard,
    "idt": idt,
    "idt_regrain": idt_regrain,
    "mkl": mkl,
    "cholesky": cholesky,
    "pca": pca,
    "luminance": luminance,
    "histogram": histogram,
}


def keep_color(stylized: Array, photograph: Array, how: KeepColor) -> Array:
    """Give a repainted photograph the photograph's colours, at video rate.

    Args:
        stylized, photograph: HWC uint8 RGB of one size.
        how: `luminance` takes only the luminance from `stylized`, pixel by pixel (Gatys et al.
            2016, "Preserving color in neural artistic style transfer"); `linear` is `mkl` and
            `histogram` is `histogram`, both measured on a sample of the pixels.

    Returns:
        HWC uint8 RGB.
    """
    step = max(1, min(stylized.shape[:2]) // 64)  # a sample has the colours of the whole
    if how == "histogram":
        return np.asarray(_match_histograms(stylized, photograph, step), np.uint8)
    if how == "linear":
        return np.asarray(_linear(stylized, photograph, _monge, step), np.uint8)
    luma, before = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (stylized, photograph))
    more, less = cv2.subtract(luma, before), cv2.subtract(before, luma)  # one of the two is 0
    kept = cv2.subtract(cv2.add(photograph, cv2.merge([more] * 3)), cv2.merge([less] * 3))
    return np.asarray(kept, np.uint8)


def style_in_colors_of(
    style: ColorImage, photographs: Sequence[ColorImage], how: KeepColor
) -> ColorImage:
    """Give a style image the colours of photographs, so that repainting keeps theirs.

    Gatys et al. 2016, "Preserving color in neural artistic style transfer": `linear` (`mkl`) and
    `histogram` give it the colours of all photographs together; `luminance` makes it grey, with
    the mean and the deviation of their luminance.

    Args:
        style: HWC uint8 RGB.
        photographs: HWC uint8 RGB of any sizes; all have the same influence.

    Returns:
        HWC uint8 RGB.
    """
    pixels = []
    for photograph in photographs:
        places = np.linspace(0, photograph.shape[0] * photograph.shape[1] - 1, _PIXELS)
        pixels.append(photograph.reshape(-1, 3)[places.round().astype(np.int64)])
    colors = np.stack(pixels)  # an image with one row for each photograph
    if how == "luminance":
        return luminance(grey(style), grey(colors))
    return (mkl if how == "linear" else histogram)(style, colors)


def grey(image: ColorImage) -> ColorImage:
    """Convert HWC uint8 RGB to its luminance (BT.601), in three equal channels."""
    return cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3)


def _match_histograms(image: ColorImage, reference: ColorImage, step: int = 1) -> ColorImage:
    """Compute `histogram` for uint8, measured on every `step`-th row and column of both."""
    few = (slice(step // 2, None, step),) * 2
    tables = []
    for counts, wanted in zip(histograms(image[few]), histograms(reference[few]), strict=True):
        values = np.flatnonzero(wanted)
        tables.append(np.interp(_cumulative(counts), _cumulative(wanted)[values], values))
    return cv2.LUT(image, np.rint(np.stack(tables, -1)).astype(np.uint8)[None])


def _cumulative(counts: NDArray[Any]) -> Matrix:
    shares: Matrix = counts.cumsum() / counts.sum()
    return shares


def _luma(pixels: ColorImage) -> ColorImage:
    return cv2.transform(pixels, _LUMA)


def _to_lalphabeta(pixels: ColorImage) -> ColorImage:
    responses = cv2.transform(pixels, _LMS)
    np.clip(responses, _FAINTEST, _BRIGHTEST, out=responses)
    # The base of the logarithm cancels out.
    return cv2.transform(np.log(responses, out=responses), _LALPHABETA)


def _from_lalphabeta(axes: ColorImage) -> ColorImage:
    responses = cv2.transform(axes, np.linalg.inv(_LALPHABETA))
    np.clip(responses, -99, math.log(_BRIGHTEST), out=responses)
    return cv2.transform(np.exp(responses, out=responses), np.linalg.inv(_LMS))


def _to_cielab(pixels: ColorImage) -> ColorImage:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _from_cielab(axes: ColorImage) -> ColorImage:
    return cv2.cvtColor(axes, cv2.COLOR_LAB2RGB) * 255


_SPACES = {
    "lalphabeta": (_to_lalphabeta, _from_lalphabeta),
    "cielab": (_to_cielab, _from_cielab),
}


def _mean_and_deviation(
    pixels: ColorImage, axes: Callable[[ColorImage], ColorImage]
) -> tuple[Matrix, Matrix]:
    """Compute mean [3] and deviation [3] of each axis to which `axes` converts float pixels."""
    bands = in_bands(pixels, lambda band: (len(band), cv2.meanStdDev(axes(as_float(band)))))
    rows = np.array([count for count, _ in bands], np.float64)
    shares = rows / rows.sum()
    means, deviations = (np.stack([found[k] for _, found in bands])[..., 0] for k in (0, 1))
    mean = shares @ means
    return mean, np.sqrt(shares @ (deviations**2 + (means - mean) ** 2))


def _ratio(new_deviation: Matrix, deviation: Matrix) -> Matrix:
    """Compute the scale of each axis; 0 for an axis that is constant in the image."""
    known = deviation > 1e-6
    return np.where(known, new_deviation / np.where(known, deviation, 1.0), 0.0)


def _affine(
    pixels: ColorImage, matrix: Matrix, mean: NDArray[Any], new_mean: NDArray[Any]
) -> ColorImage:
    """Apply `matrix` to colours about `mean`, then move them to `new_mean`."""
    return cv2.transform(pixels, np.column_stack([matrix, new_mean - matrix @ mean]))


def _statistics(pixels: ColorImage) -> tuple[Matrix, Matrix]:
    """Compute mean [3] and covariance [3, 3] of the colours."""
    mean = np.array(in_bands(pixels, lambda band: as_float(band).sum((0, 1), dtype=np.float64)))
    mean = mean.sum(0) / (pixels.shape[0] * pixels.shape[1])

    def products(band: ColorImage) -> Matrix:
        deviations = as_float(band).reshape(-1, 3) - mean
        product: Matrix = deviations.T @ deviations
        return product

    covariance = sum(in_bands(pixels, products)) / (pixels.shape[0] * pixels.shape[1])
    return mean, covariance


def _linear(
    image: ColorImage,
    reference: ColorImage,
    solve: Callable[[Matrix, Matrix], Matrix],
    step: int = 1,
) -> ColorImage:
    """Match mean and covariance by the matrix that `solve` computes from both covariances.

    Args:
        step: measure on every `step`-th row and column only.
    """
    check_images(image, reference)
    few = (slice(step // 2, None, step),) * 2
    (mean, source), (new_mean, wanted) = (_statistics(i[few]) for i in (image, reference))
    variances, axes = np.linalg.eigh(source)
    # Drop the axes along which colours are constant: stretching would amplify rounding errors.
    seen = axes * (variances > _SINGULAR * variances.sum())
    matrix = solve(source, wanted) @ seen @ axes.T
    if step > 1:  # for speed, though OpenCV's rounding is sometimes off by one
        return _affine(image, matrix, mean, new_mean)
    return _recolor(image, lambda pixels: _affine(pixels, matrix, mean, new_mean))


def _recolor(image: ColorImage, function: Callable[[ColorImage], ColorImage]) -> ColorImage:
    """Apply `function` to float pixels on all cores; return an image of the type of `image`."""
    bands = in_bands(image, lambda band: as_type_of(function(as_float(band)), band))
    return np.concatenate(bands)


def _monge(source: Matrix, wanted: Matrix) -> Matrix:
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(root @ wanted @ root, 0.5) @ inverse


def _power(covariance: Matrix, exponent: float) -> Matrix:
    """Raise a symmetric matrix to a power; axes without variance stay 0."""
    values, axes = np.linalg.eigh(covariance)
    known = values > _SINGULAR * max(values.sum(), 1e-12)
    return axes * np.where(known, np.where(known, values, 1.0) ** exponent, 0.0) @ axes.T


def _cholesky(covariance: Matrix) -> Matrix:
    """Compute the lower triangular factor, also of a singular covariance."""
    return np.linalg.cholesky(covariance + np.eye(3) * max(1e-12 * np.trace(covariance), 1e-12))

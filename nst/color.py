"""Colour transfer: an image in the colours of another one, and how near the two are then.

All methods take an image and a reference, HWC RGB of any sizes, uint8 or float in [0, 255], and
return the image in new colours, of its own shape and type. uint8 is rounded and clipped, float is
not. Constant images, grey ones and those whose colours lie on a plane give what is left to give
(the reference's mean, a range of greys in its tint), never NaN.

Hertzmann et al. 2001, "Image analogies". Pitié, Kokaram and Dahyot 2007, "Automated colour grading
using colour distribution transfer". Pitié and Kokaram 2007, "The linear Monge-Kantorovitch linear
colour mapping for example-based colour transfer". Reinhard et al. 2001, "Color transfer between
images".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.config import KeepColor
from nst.errors import UsageError

ColorImage = NDArray[Any]
Matrix = NDArray[np.float64]
LEVELS = 256
T = TypeVar("T")
_LUMA = np.array([[0.299, 0.587, 0.114]])  # BT.601
# Cones' responses of RGB, and axes of their logarithms: luminance, yellow–blue, red–green.
_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LALPHABETA = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
_FAINTEST, _BRIGHTEST = 0.25, 4096.0  # responses: black has no logarithm, white has no end
_SINGULAR = 1e-9  # share of the total variance below which an axis counts as having none
_BINS = 1 << 14  # of a distribution along one axis: some hundredths of a level each
_SAMPLE = 1 << 20  # pixels of a large image
_TRIES, _FEW = 8, 1 << 13  # turns to choose from, by so many colours
_BAND = 1 << 17  # pixels that are worked on at once, in the processor's caches
# Sweeps of regraining at the full resolution, at half of it and so on.
_SWEEPS = (2, 8, 16, 32, 64, 64)
_SMALLEST = 16  # pixels a side below which regraining sees nothing


def reinhard(
    image: ColorImage,
    reference: ColorImage,
    *,
    space: Literal["lalphabeta", "cielab"] = "lalphabeta",
) -> ColorImage:
    """Mean and deviation of each axis of a decorrelated space (Reinhard et al. 2001).

    The identity where image and reference are one, but for responses of the cones below a quarter
    of a level, which have no logarithm to speak of.

    Args:
        space: Ruderman's lαβ, as the paper has it, or CIELAB (D65, sRGB).
    """
    _check(image, reference)
    there, back = _SPACES[space]

    def statistics(pixels: ColorImage) -> tuple[Matrix, Matrix]:
        axes = _in_bands(pixels, lambda band: cv2.meanStdDev(there(_float(band))))
        means, deviations = (np.stack(values)[..., 0] for values in zip(*axes, strict=True))
        shares = _shares(pixels)
        mean = shares @ means
        return mean, np.sqrt(shares @ (deviations**2 + (means - mean) ** 2))

    (mean, deviation), (new_mean, new_deviation) = statistics(image), statistics(reference)
    scale = np.where(deviation > 1e-6, new_deviation / np.maximum(deviation, 1e-6), 0.0)

    def work(band: ColorImage) -> ColorImage:
        return _restore(back(_affine(there(_float(band)), np.diag(scale), mean, new_mean)), band)

    return np.concatenate(_in_bands(image, work))


def luminance(image: ColorImage, reference: ColorImage) -> ColorImage:
    """The reference's luminance, in mean and deviation, under the image's own chrominance.

    As Hertzmann et al. 2001 remap it. The chrominance is that of Y'CbCr (BT.601), left as it is
    where no channel has to be clipped.
    """
    _check(image, reference)

    def statistics(pixels: ColorImage) -> tuple[float, float]:
        bands = _in_bands(pixels, lambda band: cv2.meanStdDev(_luma(_float(band))))
        means, deviations = (np.ravel(values) for values in zip(*bands, strict=True))
        shares = _shares(pixels)
        mean = float(shares @ means)
        return mean, math.sqrt(shares @ (deviations**2 + (means - mean) ** 2))

    (mean, deviation), (new_mean, new_deviation) = statistics(image), statistics(reference)
    scale = new_deviation / deviation if deviation > 1e-6 else 0.0

    def work(band: ColorImage) -> ColorImage:
        pixels = _float(band)
        luma = _luma(pixels)
        change = (luma - mean) * scale + new_mean - luma
        # As much more of red, green and blue: the chrominance stays.
        return _restore(pixels + cv2.merge([change] * 3), band)

    return np.concatenate(_in_bands(image, work))


def histogram(image: ColorImage, reference: ColorImage) -> ColorImage:
    """The reference's histogram, channel by channel."""
    _check(image, reference)
    if image.dtype == reference.dtype == np.uint8:
        return _match_histograms(image, reference)
    result = np.empty(image.shape, np.float64)
    for channel in range(3):
        _, places, counts = np.unique(image[..., channel], return_inverse=True, return_counts=True)
        values, wanted = np.unique(reference[..., channel], return_counts=True)
        new = np.interp(_cumulative(counts), _cumulative(wanted), values)
        result[..., channel] = new[places].reshape(image.shape[:2])
    return _restore(result, image)


def mkl(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Mean and covariance by the linear map that changes colours least: Monge–Kantorovitch.

    Pitié and Kokaram 2007: T = S^-½ (S^½ R S^½)^½ S^-½ for covariances S and R.
    """
    return _linear(image, reference, _monge)


def cholesky(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Mean and covariance by triangular maps, which treat red first and blue last.

    Pitié and Kokaram 2007: T = L_R L_S^-1 for the Cholesky factors of the covariances.
    """

    def solve(source: Matrix, wanted: Matrix) -> Matrix:
        return _cholesky(wanted) @ np.linalg.inv(_cholesky(source))

    return _linear(image, reference, solve)


def pca(image: ColorImage, reference: ColorImage) -> ColorImage:
    """Mean and covariance by exchanging principal axes, the largest for the largest.

    Pitié and Kokaram 2007: T = P_R D_R^½ D_S^-½ P_S^T. Of an axis's two directions the one is taken
    that is nearer to the image's.
    """

    def solve(source: Matrix, wanted: Matrix) -> Matrix:
        variances, axes = np.linalg.eigh(source)
        new_variances, new_axes = np.linalg.eigh(wanted)
        new_axes = new_axes * np.where((axes * new_axes).sum(0) < 0, -1, 1)
        known = variances > _SINGULAR * variances.sum()
        ratio = np.where(known, new_variances.clip(0), 0) / np.where(known, variances, 1)
        return new_axes * np.sqrt(ratio) @ axes.T

    return _linear(image, reference, solve)


def idt(
    image: ColorImage,
    reference: ColorImage,
    *,
    iterations: int = 10,
    seed: int = 0,
    callback: Callable[[ColorImage], object] | None = None,
) -> ColorImage:
    """The whole distribution of colours, by iterative distribution transfer.

    Pitié et al. 2007: along three axes at right angles the distributions of image and
    reference are made one, then along others, turned at random: of eight turns that along which
    the two are farthest apart, or some would change nothing. The identity where image and
    reference are one, within half a level.

    Args:
        iterations: turns; the first is that of red, green and blue.
        seed: of the turns.
        callback: called with the image after each of them, float32.
    """
    if iterations < 1:
        raise UsageError(f"iterations are {iterations}: give 1 or more")
    return _restore(_idt(image, reference, iterations, seed, callback), image)


def idt_regrain(
    image: ColorImage, reference: ColorImage, *, iterations: int = 10, seed: int = 0
) -> ColorImage:
    """`idt` with the grain of the image (Pitié et al. 2007).

    Where colours are stretched, so is the noise between them. The result J of an image I keeps the
    gradients of I and is drawn to the colours t of `idt`: ∫ φ |∇J - ∇I|² + ψ |J - t|², where
    φ = 30 / (1 + 10 |∇I|) and ψ = min(|∇I| / 5, 1). Solved from coarse to fine.
    """
    pixels = np.ascontiguousarray(_float(image), np.float32)
    change = _idt(image, reference, iterations, seed) - pixels
    return _restore(pixels + _smooth_change(pixels, change, 0), image)


Method = Callable[[ColorImage, ColorImage], ColorImage]
METHODS: dict[str, Method] = {
    "reinhard": reinhard,
    "idt": idt,
    "idt_regrain": idt_regrain,
    "mkl": mkl,
    "cholesky": cholesky,
    "pca": pca,
    "luminance": luminance,
    "histogram": histogram,
}


def keep_color(stylized: ColorImage, photograph: ColorImage, how: KeepColor) -> ColorImage:
    """A repainted photograph in the photograph's colours, at video rate.

    Args:
        stylized, photograph: HWC uint8 RGB of one size.
        how: `luminance` takes the brightness alone from `stylized`, pixel by pixel (Gatys et al.
            2016, "Preserving color in neural artistic style transfer"); `linear` is `mkl` and
            `histogram` is `histogram`, told by some of the pixels.
    """
    step = max(1, min(stylized.shape[:2]) // 64)  # some pixels know the colours of all
    if how == "histogram":
        return _match_histograms(stylized, photograph, step)
    if how == "linear":
        return _linear(stylized, photograph, _monge, step)
    luma, before = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (stylized, photograph))
    more, less = cv2.subtract(luma, before), cv2.subtract(before, luma)  # one of them is 0
    return cv2.subtract(cv2.add(photograph, cv2.merge([more] * 3)), cv2.merge([less] * 3))


def histograms(image: ColorImage) -> NDArray[np.int64]:
    """How many pixels of uint8 HWC have each level, by channel: [3, 256]."""
    image = np.ascontiguousarray(image)
    counts = [cv2.calcHist([image], [k], None, [LEVELS], [0, LEVELS]).ravel() for k in range(3)]
    return np.stack(counts).astype(np.int64)


def kl_divergence(image: ColorImage, reference: ColorImage, smoothing: float = 0.0) -> Matrix:
    """Kullback–Leibler divergence of an image's histogram from the reference's, by channel: [3].

    Σ p log(p / q) in nats over 256 bins of one level, p of the image, q of the reference; `inf`
    where the image has a level that the reference lacks.

    Args:
        smoothing: added to the count of every bin.
    """
    p, q = (histograms(_bytes(i)) + smoothing for i in (image, reference))
    p, q = (counts / counts.sum(1, keepdims=True) for counts in (p, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / q), 0.0)
    total: Matrix = terms.sum(1)
    return total


def wasserstein(image: ColorImage, reference: ColorImage) -> Matrix:
    """How far the levels of a channel are to be moved on average, in levels, by channel: [3]."""
    p, q = (histograms(_bytes(i)).cumsum(1) / (i.shape[0] * i.shape[1]) for i in (image, reference))
    distance: Matrix = np.abs(p - q).sum(1)
    return distance


def _check(*images: ColorImage) -> None:
    for image in images:
        kind = image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or not kind:
            raise UsageError(
                f"an image is {image.dtype} of {image.shape}: give uint8 or float RGB, height first"
            )


def _float(image: ColorImage) -> ColorImage:
    """float32, or float64 where it is that already."""
    _check(image)
    wide = image if image.dtype == np.float64 else image.astype(np.float32)
    if image.dtype != np.uint8 and not np.isfinite(wide).all():
        raise UsageError("an image has values that are not finite")
    return wide


def _restore(result: ColorImage, image: ColorImage) -> ColorImage:
    """`result` in the type of `image`."""
    if image.dtype != np.uint8:
        return result.astype(image.dtype)
    return np.rint(result).clip(0, 255).astype(np.uint8)


def _bytes(image: ColorImage) -> ColorImage:
    _check(image)
    return image if image.dtype == np.uint8 else np.rint(image).clip(0, 255).astype(np.uint8)


def _match_histograms(image: ColorImage, reference: ColorImage, step: int = 1) -> ColorImage:
    """`histogram` of uint8, told by every so many rows and columns of both."""
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


def _in_bands(pixels: ColorImage, work: Callable[[ColorImage], T]) -> list[T]:
    """What `work` makes of bands of rows, from top to bottom, on all cores."""
    rows = max(1, _BAND // pixels.shape[1])
    bands = [pixels[top : top + rows] for top in range(0, len(pixels), rows)]
    if len(bands) == 1:
        return [work(bands[0])]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, bands))


def _shares(pixels: ColorImage) -> Matrix:
    """Of the pixels, which each band of `_in_bands` has."""
    rows = np.array(_in_bands(pixels, len), np.float64)
    shares: Matrix = rows / rows.sum()
    return shares


def _affine(
    pixels: ColorImage, matrix: Matrix, mean: NDArray[Any], new_mean: NDArray[Any]
) -> ColorImage:
    """Colours turned and stretched about their mean, then moved to another."""
    return cv2.transform(pixels, np.column_stack([matrix, new_mean - matrix @ mean]))


def _statistics(pixels: ColorImage) -> tuple[Matrix, Matrix]:
    """Mean [3] and covariance [3, 3] of the colours."""
    mean = np.array(_in_bands(pixels, lambda band: _float(band).sum((0, 1), dtype=np.float64)))
    mean = mean.sum(0) / (pixels.shape[0] * pixels.shape[1])

    def products(band: ColorImage) -> Matrix:
        deviations = _float(band).reshape(-1, 3) - mean
        product: Matrix = deviations.T @ deviations
        return product

    covariance = sum(_in_bands(pixels, products)) / (pixels.shape[0] * pixels.shape[1])
    return mean, covariance


def _linear(
    image: ColorImage,
    reference: ColorImage,
    solve: Callable[[Matrix, Matrix], Matrix],
    step: int = 1,
) -> ColorImage:
    """The reference's mean and covariance, by the matrix that `solve` finds from both covariances.

    Args:
        step: look at every so many rows and columns only.
    """
    _check(image, reference)
    few = (slice(step // 2, None, step),) * 2
    (mean, source), (new_mean, wanted) = (_statistics(i[few]) for i in (image, reference))
    variances, axes = np.linalg.eigh(source)
    # Where colours don't vary there is nothing to stretch, and rounding errors must not be.
    seen = axes * (variances > _SINGULAR * variances.sum())
    matrix = solve(source, wanted) @ seen @ axes.T
    if step > 1:  # in haste: OpenCV's own rounding is off by one at times
        return _affine(image, matrix, mean, new_mean)

    def work(band: ColorImage) -> ColorImage:
        return _restore(_affine(_float(band), matrix, mean, new_mean), band)

    return np.concatenate(_in_bands(image, work))


def _monge(source: Matrix, wanted: Matrix) -> Matrix:
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(root @ wanted @ root, 0.5) @ inverse


def _power(covariance: Matrix, exponent: float) -> Matrix:
    """Of a symmetric matrix; axes without variance stay without."""
    values, axes = np.linalg.eigh(covariance)
    known = values > _SINGULAR * max(values.sum(), 1e-12)
    return axes * np.where(known, np.where(known, values, 1.0) ** exponent, 0.0) @ axes.T


def _cholesky(covariance: Matrix) -> Matrix:
    """Its lower triangular factor, of one that is singular too."""
    return np.linalg.cholesky(covariance + np.eye(3) * max(1e-12 * np.trace(covariance), 1e-12))


def _idt(
    image: ColorImage,
    reference: ColorImage,
    iterations: int,
    seed: int,
    callback: Callable[[ColorImage], object] | None = None,
) -> ColorImage:
    """As `idt`, float32 HWC."""
    if iterations < 1:
        raise UsageError(f"iterations are {iterations}: give 1 or more")
    # Each colour once: a large photograph has a tenth as many of them as it has pixels.
    x, weights, places = _palette(image)
    colors, wanted, _ = _palette(reference)
    ends = np.stack([f(i, 0) for i in (x, colors) for f in (np.min, np.max)])
    least, most = ends.min(0).astype(np.float64), ends.max(0).astype(np.float64)
    # Matched along three axes, a colour may lie √3 times as far out as any of the reference.
    centre, radius = (least + most) / 2, 3**0.5 * float(np.linalg.norm(most - least)) / 2 + 1
    width = 2 * radius / (_BINS - 1)
    rng = np.random.default_rng(seed)
    turn = np.eye(3)
    for _ in range(iterations):
        low = turn @ centre - radius
        along, new = x @ turn.T.astype(np.float32), colors @ turn.T.astype(np.float32)
        for axis in range(3):
            bins, others = (
                np.rint((v[:, axis] - low[axis]) / width).astype(np.intp) for v in (along, new)
            )
            target = np.bincount(others, wanted, _BINS)
            filled = np.flatnonzero(target)
            middles = _middles(np.bincount(bins, weights, _BINS))
            table = np.interp(middles, _middles(target)[filled], filled * width + low[axis])
            along[:, axis] = table[bins]
        x = along @ turn.astype(np.float32)
        if callback is not None:
            callback(x[places])
        one, other = (
            (c[:: -(-len(c) // _FEW)], w[:: -(-len(c) // _FEW)])
            for c, w in ((x, weights), (colors, wanted))
        )
        turns = [_random_turn(rng) for _ in range(_TRIES)]
        turn = max(turns, key=lambda axes: _apart(one, other, axes, centre, radius))
    return x[places]


def _random_turn(rng: np.random.Generator) -> Matrix:
    """Three axes at right angles, evenly over all turns."""
    turn, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    axes: Matrix = turn * np.sign(np.diag(triangle))
    return axes


def _apart(
    one: tuple[ColorImage, NDArray[Any]],
    other: tuple[ColorImage, NDArray[Any]],
    turn: Matrix,
    centre: Matrix,
    radius: float,
) -> float:
    """How far two sets of colours, each with how often they come, are apart along three axes."""
    shares = []
    for colors, weights in (one, other):
        places = ((colors - centre) @ turn.T / radius * 511.5 + 511.5).astype(np.intp)
        counts = [np.bincount(places[:, k], weights, 1024).cumsum() for k in range(3)]
        shares.append(np.stack(counts) / weights.sum())
    return float(np.abs(shares[0] - shares[1]).sum())


def _palette(image: ColorImage) -> tuple[ColorImage, NDArray[Any], NDArray[np.intp]]:
    """The colours of an image, float32 [N, 3], how often each comes [N], and where [H, W]."""
    if image.dtype != np.uint8:
        colors = _float(image).reshape(-1, 3).astype(np.float32)
        places = np.arange(len(colors)).reshape(image.shape[:2])
        return colors, np.ones(len(colors)), places
    _check(image)
    red, green, blue = (plane.astype(np.int32) for plane in cv2.split(image))
    codes = (red << 16) | (green << 8) | blue
    if codes.size < _SAMPLE:
        found, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    else:  # sorting would take longer than a table of all colours
        table = np.bincount(codes.ravel(), minlength=1 << 24)
        found = np.flatnonzero(table)
        counts = table[found]
        table[found] = np.arange(len(found))
        places = table[codes]
    colors = np.stack([found >> 16, found >> 8 & 255, found & 255], -1).astype(np.float32)
    return colors, counts, places.reshape(codes.shape)


def _middles(counts: NDArray[Any]) -> Matrix:
    """The share of values below the middle of each bin."""
    shares: Matrix = (counts.cumsum() - counts / 2) / counts.sum()
    return shares


def _smooth_change(pixels: ColorImage, change: ColorImage, level: int) -> ColorImage:
    """The change J - I of `idt_regrain`, given t - I; float32 HWC both.

    In it the energy is that of a diffusion which edges let through least: Jacobi's iteration, begun
    from the solution at half the resolution.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < 2 * _SMALLEST or level + 1 == len(_SWEEPS):
        solution = change
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        fewer, less = (cv2.resize(i, half, interpolation=cv2.INTER_AREA) for i in (pixels, change))
        solution = cv2.resize(_smooth_change(fewer, less, level + 1), (width, height))
    slope = np.zeros((height, width), np.float32)
    for kernel in ([[-0.5, 0, 0.5]], [[-0.5], [0], [0.5]]):
        gradient = cv2.filter2D(pixels, -1, np.array(kernel))
        slope += cv2.transform(np.square(gradient, out=gradient), np.ones((1, 3)))
    np.sqrt(slope, out=slope)
    flow = cv2.merge([30 / (1 + 10 * slope)] * 3)
    pull = cv2.merge([np.minimum(slope / 5, 1)] * 3)
    # Between two pixels the flow is the mean of theirs.
    whole = _around(flow)
    whole += 4 * flow
    whole /= 2
    whole += pull
    pull *= change
    buffer = np.empty_like(flow)
    for _ in range(_SWEEPS[level]):
        buffer = _around(np.multiply(flow, solution, out=buffer))
        solution = _around(solution)
        solution *= flow
        solution += buffer
        solution /= 2
        solution += pull
        solution /= whole
    return solution


def _around(x: ColorImage) -> ColorImage:
    """The sum of a pixel's four neighbours."""
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
    return cv2.filter2D(x, -1, cross, borderType=cv2.BORDER_REPLICATE)

"""Iterative distribution transfer: gives an image the distribution of another's colours.

Pitié, Kokaram and Dahyot 2007, "Automated colour grading using colour distribution transfer".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.color.pixels import ColorImage, Matrix, as_float, as_type_of, check_images
from nst.errors import UsageError

_BINS = 1 << 14  # bins of a distribution along one axis, of some hundredths of a level each
_SAMPLE = 1 << 20  # pixels from which on a table of all colours is faster than sorting
_CANDIDATES, _COLORS = 8, 1 << 13  # rotations to choose from, and the colours that decide
# Sweeps of regraining at the full resolution, at half of it and so on.
_SWEEPS = (2, 8, 16, 32, 64, 64)
_SMALLEST = 16  # pixels, smallest side of a resolution level of regraining


def idt(
    image: ColorImage,
    reference: ColorImage,
    *,
    iterations: int = 10,
    seed: int = 0,
    callback: Callable[[ColorImage], object] | None = None,
) -> ColorImage:
    """Match the whole distribution of colours by iterative distribution transfer.

    Pitié et al. 2007: match the distributions of image and reference along three orthogonal axes,
    then along others, rotated at random. Of eight random rotations take the one along whose axes
    the two differ most, because some would change nothing. If image and reference are equal, the
    result is the image, within half a level.

    Args:
        iterations: number of rotations; the first one's axes are red, green and blue.
        seed: random seed of the rotations.
        callback: called with the image after each rotation, float32 HWC.

    Raises:
        UsageError: not an image, or `iterations` is below 1.
    """
    return as_type_of(_idt(image, reference, iterations, seed, callback), image)


def idt_regrain(
    image: ColorImage, reference: ColorImage, *, iterations: int = 10, seed: int = 0
) -> ColorImage:
    """Match colours as `idt` does, and keep the grain of the image (Pitié et al. 2007).

    `idt` amplifies noise where it stretches colours. The result J of an image I keeps the gradients
    of I and is drawn to the colours t of `idt`: it minimises ∫ φ |∇J - ∇I|² + ψ |J - t|², where
    φ = 30 / (1 + 10 |∇I|) and ψ = min(|∇I| / 5, 1), from coarse to fine.
    """
    pixels = np.ascontiguousarray(as_float(image), np.float32)
    change = _idt(image, reference, iterations, seed) - pixels
    return as_type_of(pixels + _smooth_change(pixels, change, 0), image)


def _idt(
    image: ColorImage,
    reference: ColorImage,
    iterations: int,
    seed: int,
    callback: Callable[[ColorImage], object] | None = None,
) -> ColorImage:
    """Compute `idt` in float32 HWC."""
    if iterations < 1:
        raise UsageError(f"iterations are {iterations}: give 1 or more")
    # Each colour once: a large photograph has ten times as many pixels as colours.
    x, weights, places = _palette(image)
    colors, wanted, _ = _palette(reference)
    ends = np.stack([f(i, 0) for i in (x, colors) for f in (np.min, np.max)])
    least, most = ends.min(0).astype(np.float64), ends.max(0).astype(np.float64)
    # Matching along three axes may move a colour √3 times as far out as any of the reference.
    centre, radius = (least + most) / 2, 3**0.5 * float(np.linalg.norm(most - least)) / 2 + 1
    width = 2 * radius / (_BINS - 1)
    rng = np.random.default_rng(seed)
    rotation = np.eye(3)
    for _ in range(iterations):
        low = rotation @ centre - radius
        along, new = (c @ rotation.T.astype(np.float32) for c in (x, colors))
        for axis in range(3):
            bins, others = (
                np.rint((v[:, axis] - low[axis]) / width).astype(np.intp) for v in (along, new)
            )
            target = np.bincount(others, wanted, _BINS)
            filled = np.flatnonzero(target)
            middles = _middles(np.bincount(bins, weights, _BINS))
            table = np.interp(middles, _middles(target)[filled], filled * width + low[axis])
            along[:, axis] = table[bins]
        x = along @ rotation.astype(np.float32)
        if callback is not None:
            callback(x[places])
        one, other = (
            (c[:: -(-len(c) // _COLORS)], w[:: -(-len(c) // _COLORS)])
            for c, w in ((x, weights), (colors, wanted))
        )
        rotations = [_random_rotation(rng) for _ in range(_CANDIDATES)]
        rotation = max(rotations, key=lambda axes: _distance(one, other, axes, centre, radius))
    return x[places]


def _random_rotation(rng: np.random.Generator) -> Matrix:
    """Draw three orthonormal axes, uniformly over all rotations and reflections."""
    axes, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation: Matrix = axes * np.sign(np.diag(triangle))
    return rotation


def _distance(
    one: tuple[ColorImage, NDArray[Any]],
    other: tuple[ColorImage, NDArray[Any]],
    rotation: Matrix,
    centre: Matrix,
    radius: float,
) -> float:
    """Measure how two sets of colours, each with its counts, differ along three axes."""
    shares = []
    for colors, weights in (one, other):
        places = ((colors - centre) @ rotation.T / radius * 511.5 + 511.5).astype(np.intp)
        counts = [np.bincount(places[:, k], weights, 1024).cumsum() for k in range(3)]
        shares.append(np.stack(counts) / weights.sum())
    return float(np.abs(shares[0] - shares[1]).sum())


def _palette(image: ColorImage) -> tuple[ColorImage, NDArray[Any], NDArray[np.intp]]:
    """List the colours of an image, float32 [N, 3], their counts [N], and their indices [H, W]."""
    if image.dtype != np.uint8:
        colors = as_float(image).reshape(-1, 3).astype(np.float32)
        places = np.arange(len(colors)).reshape(image.shape[:2])
        return colors, np.ones(len(colors)), places
    check_images(image)
    red, green, blue = (plane.astype(np.int32) for plane in cv2.split(image))
    codes = (red << 16) | (green << 8) | blue
    if codes.size < _SAMPLE:
        found, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    else:  # a table of all colours is faster than sorting
        table = np.bincount(codes.ravel(), minlength=1 << 24)
        found = np.flatnonzero(table)
        counts = table[found]
        table[found] = np.arange(len(found))
        places = table[codes]
    colors = np.stack([found >> 16, found >> 8 & 255, found & 255], -1).astype(np.float32)
    return colors, counts, places.reshape(codes.shape)


def _middles(counts: NDArray[Any]) -> Matrix:
    """Compute the share of values below the middle of each bin."""
    shares: Matrix = (counts.cumsum() - counts / 2) / counts.sum()
    return shares


def _smooth_change(pixels: ColorImage, change: ColorImage, level: int) -> ColorImage:
    """Compute the change J - I of `idt_regrain` from the change t - I; float32 HWC both.

    The minimum of the energy solves a diffusion equation for the change, with the least flow across
    edges. Jacobi iterations solve it, starting from the solution at half the resolution.
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
    # The flow between two pixels is the mean of their values.
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
    """Sum the four neighbours of each pixel."""
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
    return cv2.filter2D(x, -1, cross, borderType=cv2.BORDER_REPLICATE)

"""Crops photographs at random, and draws scenes from them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.io.images import Array

Random = np.random.Generator

ZOOM = 1.3  # a photograph's short side spans 1 to 1.3 full crops
BUILTIN_ZOOM = 4.0  # more for the few built-in photographs, which must show near and far things


def random_crop(image: Array, side: int, full: int, rng: Random, zoom: float = ZOOM) -> Array:
    """Crop a random square of `image` (HWC uint8), scaled at random and perhaps flipped.

    The short side of the whole image spans 1 to `zoom` times `full` pixels at that scale.

    Args:
        side: side of the result, pixels.
        full: side at which a scale of 1 shows the whole short side; a smaller `side` shows a part
            at the same scale.
    """
    height, width = image.shape[:2]
    short = full * zoom ** rng.random()
    edge = min(min(height, width), max(1, round(side * min(height, width) / short)))
    top, left = rng.integers(height - edge + 1), rng.integers(width - edge + 1)
    patch = image[top : top + edge, left : left + edge]
    # Area averaging takes ten times as long; only strong reductions need it.
    interpolation = cv2.INTER_LINEAR if edge > side else cv2.INTER_CUBIC
    if edge > 1.5 * side:
        interpolation = cv2.INTER_AREA
    resized = cv2.resize(patch, (side, side), interpolation=interpolation)
    return np.asarray(cv2.flip(resized, 1) if rng.random() < 0.5 else resized, np.uint8)


def random_tint(image: Array, rng: Random) -> Array:
    """Change brightness, contrast, saturation and colour cast of `image` a little, at random.

    Strong changes would teach the network colours that photographs don't have.
    """
    luma = np.full((3, 3), (0.299, 0.587, 0.114))
    saturation = rng.uniform(0.6, 1.3)
    matrix = saturation * np.eye(3) + (1 - saturation) * luma
    contrast = rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3)
    offset = 128 * (1 - contrast) + rng.uniform(-15, 15)
    tinted = cv2.transform(image, np.column_stack([matrix * contrast[:, None], offset]))
    return np.asarray(tinted, np.uint8)


def draw_scene(photographs: list[Array], side: int, rng: Random) -> Array:
    """Draw a dead-leaves image (Lee, Mumford and Huang 2001): occluding shapes of all sizes.

    The density of the radii is proportional to r⁻³, which gives the scale invariance of natural
    images. Colours are taken from photographs, some shapes are filled with pieces of photographs,
    and the light varies smoothly over the whole.

    Returns:
        HWC uint8 RGB, `side` × `side`.
    """
    palette = photographs[rng.integers(len(photographs))].reshape(-1, 3)
    scene = _photograph_patch(photographs, side, rng)
    count = int(rng.integers(60, 400))
    least, most = side / 80, side / rng.uniform(1.5, 5)
    # Inverse of the cumulative distribution of r⁻³ between `least` and `most`. Half of the shapes
    # are sorted, so that large ones are behind.
    radii = (most**-2 + rng.random(count) * (least**-2 - most**-2)) ** -0.5
    radii[: count // 2] = np.sort(radii[: count // 2])[::-1]
    colors = palette[rng.integers(len(palette), size=count)].tolist()
    pasted = (radii > side / 12) & (rng.random(count) < 0.4)
    for outline, color, cut_out in zip(_leaves(radii, side, rng), colors, pasted, strict=True):
        if cut_out:
            _paste(scene, outline, photographs, rng)
        else:
            cv2.fillPoly(scene, [outline], color, cv2.LINE_AA, _SHIFT)
    light = cv2.resize(rng.uniform(0.55, 1.3, (3, 3)).astype(np.float32), (side, side))
    noise = np.float32(rng.uniform(0, 6)) * rng.standard_normal((side, side), np.float32)
    # Three equal channels, because NumPy is slow to broadcast over an axis of three.
    lit = scene * cv2.merge([np.clip(light, 0.3, 1.4)] * 3) + cv2.merge([noise] * 3)
    return np.clip(lit, 0, 255).astype(np.uint8)


_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_CORNERS = 24  # corners of a round outline


def _leaves(radii: NDArray[np.float64], side: int, rng: Random) -> list[NDArray[np.int32]]:
    """Make outlines of ellipses, polygons and wavy blobs, in OpenCV's fixed point.

    All are made at once: a Python loop would keep the trainer waiting.
    """
    count = len(radii)
    kind = rng.integers(3, size=count)
    corners = np.where(kind == 1, rng.integers(3, 7, count), _CORNERS)
    angle = 2 * np.pi * np.arange(_CORNERS) / corners[:, None]
    waves = rng.integers(2, 7, (count, 1)) * angle + rng.uniform(0, 6, (count, 1))
    length = radii[:, None] * (1 + 0.3 * (kind == 2)[:, None] * np.sin(waves))
    points = np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.15, 1, (count, 1))]) * length
    turn = rng.uniform(0, np.pi, (count, 1))
    turned = [
        np.cos(turn) * points[0] - np.sin(turn) * points[1],
        np.sin(turn) * points[0] + np.cos(turn) * points[1],
    ]
    outlines = np.stack(turned, -1) + rng.uniform(0, side, (count, 1, 2))
    fixed = np.rint(outlines * (1 << _SHIFT)).astype(np.int32)
    return [outline[:n] for outline, n in zip(fixed, corners, strict=True)]


def _paste(scene: Array, outline: NDArray[np.int32], photographs: list[Array], rng: Random) -> None:
    """Fill `outline` with a piece of a photograph, in place."""
    side = len(scene)
    left, top = np.clip(outline.min(0) >> _SHIFT, 0, side)
    right, bottom = np.clip((outline.max(0) >> _SHIFT) + 2, 0, side)
    if right <= left or bottom <= top:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    corner = np.array([left, top], np.int32) << _SHIFT
    cv2.fillPoly(mask, [(outline - corner).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    patch = random_tint(_photograph_patch(photographs, max(mask.shape), rng), rng)
    cover = mask[..., None].astype(np.uint16)
    below = scene[top:bottom, left:right]
    above = patch[: bottom - top, : right - left]
    below[:] = ((above * cover + below * (255 - cover) + 127) // 255).astype(np.uint8)


def _photograph_patch(photographs: list[Array], side: int, rng: Random) -> Array:
    image = photographs[rng.integers(len(photographs))]
    return random_crop(image, side, side, rng, BUILTIN_ZOOM)

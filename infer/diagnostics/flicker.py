"""Measures how much a model's results flicker: under known motion, and on a video.

The measure is the warping error (Lai et al. 2018): a stylised frame is compared with the one before
it, warped as the scene moved, where the scene is visible in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.errors import UsageError
from nst.infer.diagnostics.photographs import Stylize, check_photographs
from nst.infer.runtime.resize import resized, scaled
from nst.io.images import Array

LONG_SIDE = 640  # pixels; larger photographs are scaled down first
EDGE = 2  # pixels along the border that do not count, because interpolation reaches beyond
MOTIONS = ("shift", "slide", "turn", "zoom", "bend", "noise", "light")
_SHIFTS = ((1, 0), (1, 2), (3, 1), (2, 5))  # pixels down and right; no multiples of four
_SLIDE = (0.5, 1.25)  # pixels
_TURN, _ZOOM, _BEND = 1.0, 1.01, 2.0  # degrees, factor, pixels
_NOISE, _LIGHT = 3.0, 1.04  # standard deviation in levels, factor

Values = NDArray[np.float32]


@dataclass(frozen=True)
class MotionError:
    """The warping error under one kind of motion.

    Attributes:
        motion: `shift` by whole pixels, `slide` by fractions, `turn`, `zoom`, `bend`, `noise` or
            `light`.
        rms: RMS difference in levels of 0 to 255, over all stylised photographs.
        photographs: RMS difference of the photographs themselves, due to interpolation, noise and
            light; a model that changes nothing has this error.
    """

    motion: str
    rms: float
    photographs: float


@dataclass(frozen=True)
class ClipFlicker:
    """The warping error from frame to frame of a video.

    Attributes:
        rms: RMS difference in levels of 0 to 255 over the stylised video, where the scene is
            visible in both frames.
        film: RMS difference of the video itself, due to noise, light, and errors of the optical
            flow.
        errors: `rms` of each frame from the second on.
        film_errors: `film` of each frame from the second on.
        seen: mean share of the pixels that count.
        frames: number of frames compared, the first one included.
        slice: middle row of the video over time, above that of the stylised one; HWC uint8 RGB.
        difference: difference of the last two frames after warping, for the video (left) and the
            stylised one (right), multiplied by eight around grey; HWC uint8 RGB.
    """

    rms: float
    film: float
    errors: tuple[float, ...]
    film_errors: tuple[float, ...]
    seen: float
    frames: int
    slice: Array = field(repr=False, compare=False)
    difference: Array = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, without the images, ready for JSON."""
        names = ("rms", "film", "errors", "film_errors", "seen", "frames")
        return {name: getattr(self, name) for name in names}


def motion_flicker(
    stylize: Stylize,
    photographs: Sequence[Array],
    callback: Callable[[int, int], None] = lambda *_: None,
) -> tuple[MotionError, ...]:
    """Move photographs in known ways and compare them once stylised.

    Args:
        stylize: maps HWC uint8 RGB to the same shape.
        photographs: HWC uint8 RGB; larger ones are scaled to a long side of 640 pixels.
        callback: called after each stylised image with the number done and the number of all.

    Raises:
        UsageError: there are no photographs.
    """
    check_photographs(photographs)
    # Sums of squares of the stylised images and of the photographs, and the number of values.
    sums = {motion: np.zeros(3) for motion in MOTIONS}
    total = len(photographs) * (len(MOTIONS) + len(_SHIFTS))
    done = 0

    def paint(image: Array) -> Array:
        nonlocal done
        stylized = stylize(image)
        done += 1
        callback(done, total)
        return stylized

    for number, photograph in enumerate(photographs):
        if max(photograph.shape[:2]) > LONG_SIDE:
            photograph = resized(photograph, scaled(photograph.shape[:2], LONG_SIDE))
        before = paint(photograph)
        for motion in MOTIONS:
            for places in _places(motion, photograph.shape[:2], number):
                after = np.rint(_warped(photograph, places).clip(0, 255)).astype(np.uint8)
                if motion == "noise":
                    noise = np.random.default_rng(number).normal(0, _NOISE, after.shape)
                    after = np.rint((after + noise).clip(0, 255)).astype(np.uint8)
                if motion == "light":
                    after = np.rint((after * np.float32(_LIGHT)).clip(0, 255)).astype(np.uint8)
                seen = _inside(places, photograph.shape[:2])
                sums[motion] += (
                    _squares(_warped(before, places), paint(after), seen),
                    _squares(_warped(photograph, places), after, seen),
                    3 * seen.sum(),
                )
    return tuple(
        MotionError(motion, math.sqrt(own / max(n, 1)), math.sqrt(rest / max(n, 1)))
        for motion, (own, rest, n) in sums.items()
    )


def clip_flicker(
    stylize: Stylize,
    frames: Iterable[Array],
    callback: Callable[[int], None] = lambda _: None,
) -> ClipFlicker:
    """Compare a video's stylised frames, warped by the optical flow (Kroeger et al. 2016).

    Occlusions, found by the consistency of the flows forward and back, and the edges of motion do
    not count (Ruder et al. 2016, section 4.2).

    Args:
        stylize: maps HWC uint8 RGB to the same shape; called frame by frame, so it may keep state.
        frames: HWC uint8 RGB, all of one size.
        callback: called after each frame with the number done.

    Raises:
        UsageError: there are fewer than two frames, or they are too small or of several sizes.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: tuple[Array, Array, Array] | None = None
    errors: list[tuple[float, float, float]] = []
    rows: list[tuple[Array, Array]] = []
    differences: list[Values] = []
    for number, frame in enumerate(frames, 1):
        painted = stylize(frame)
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        middle = frame.shape[0] // 2
        rows.append((frame[middle].copy(), painted[middle].copy()))  # a view would keep it all
        if before is not None:
            places, seen = _moved(flow, before[2], grey)
            differences = [
                (new - _warped(old, places)) * seen[..., None]
                for new, old in ((frame, before[0]), (painted, before[1]))
            ]
            film, own = (float(np.square(d, dtype=np.float64).sum()) for d in differences)
            errors.append((own, film, 3.0 * float(seen.sum())))
        before = frame, painted, grey
        callback(number)
    if not errors:
        raise UsageError("one frame can't flicker: give a video of two frames or more")
    sums = np.array(errors)
    rms = np.sqrt(sums[:, :2] / np.maximum(sums[:, 2:], 1))
    own, film = np.sqrt(sums[:, :2].sum(0) / max(1.0, sums[:, 2].sum()))
    assert before is not None
    pixels = 3 * before[2].size
    over_time = [np.stack(row) for row in zip(*rows, strict=True)]
    return ClipFlicker(
        rms=float(own),
        film=float(film),
        errors=tuple(rms[:, 0].tolist()),
        film_errors=tuple(rms[:, 1].tolist()),
        seen=float(sums[:, 2].mean() / pixels),
        frames=len(rows),
        slice=np.concatenate(over_time),
        difference=np.hstack([(128 + 8 * d).clip(0, 255).astype(np.uint8) for d in differences]),
    )


def to_dict(motions: Sequence[MotionError], clip: ClipFlicker | None) -> dict[str, Any]:
    """Return all numbers, ready for JSON."""
    return {
        "motions": [asdict(motion) for motion in motions],
        "clip": None if clip is None else clip.to_dict(),
    }


def _grid(size: tuple[int, ...]) -> Values:
    """Return the (column, row) of all pixels, [H, W, 2]."""
    rows, columns = np.indices(size, np.float32)
    return np.stack([columns, rows], 2)


def _places(motion: str, size: tuple[int, ...], seed: int) -> list[Values]:
    """Return each pixel's (column, row) before the motion, [H, W, 2]; one array per variant."""
    still = _grid(size)
    if motion == "shift":
        return [still + np.array([right, down], np.float32) for down, right in _SHIFTS]
    if motion == "slide":
        return [still + np.array(_SLIDE, np.float32)]
    if motion in ("turn", "zoom"):
        center = ((size[1] - 1) / 2, (size[0] - 1) / 2)
        angle, zoom = (_TURN, 1.0) if motion == "turn" else (0.0, _ZOOM)
        matrix = cv2.getRotationMatrix2D(center, angle, zoom).astype(np.float32)
        return [still @ matrix[:, :2].T + matrix[:, 2]]
    if motion == "bend":
        coarse = np.random.default_rng(seed).uniform(-_BEND, _BEND, (5, 5, 2)).astype(np.float32)
        return [still + cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)]
    return [still]


def _warped(image: Array, places: Values) -> Values:
    """Sample an image at `places`, as float32."""
    warped = cv2.remap(
        image.astype(np.float32),
        places[..., 0],
        places[..., 1],
        cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.float32)


def _inside(places: Values, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which `places` lie inside an image of (height, width), without its edge."""
    last = np.array([size[1], size[0]], np.float32) - 1
    return np.asarray(((places >= EDGE) & (places <= last - EDGE)).all(2), np.bool_)


def _squares(expected: Values, found: Array, seen: NDArray[np.bool_]) -> float:
    return float(np.square((expected - found)[seen], dtype=np.float64).sum())


def _moved(flow: cv2.DISOpticalFlow, before: Array, now: Array) -> tuple[Values, NDArray[np.bool_]]:
    """Return each pixel's (column, row) in `before`, and whether it was visible there."""
    nothing: Any = None  # no initial flow
    try:
        back = np.asarray(flow.calc(now, before, nothing), np.float32)
        there = np.asarray(flow.calc(before, now, nothing), np.float32)
    except cv2.error as error:
        sizes = " and ".join(dict.fromkeys(f"{g.shape[1]}×{g.shape[0]}" for g in (before, now)))
        raise UsageError(
            f"no optical flow between frames of {sizes} pixels: "
            "give a video of one size, of 12 pixels or more a side"
        ) from error
    places = _grid(now.shape) + back
    again = cv2.remap(there, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    lengths = np.square(back).sum(2) + np.square(again).sum(2)
    hidden = np.square(back + again).sum(2) > 0.01 * lengths + 0.5
    edges = sum(np.square(np.gradient(back, axis=axis)).sum(2) for axis in (0, 1))
    steep = edges > 0.01 * np.square(back).sum(2) + 0.002
    return places, _inside(places, now.shape) & ~hidden & ~steep

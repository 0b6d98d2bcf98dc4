"""How much a model's pictures flicker: under motion that is known, and on a film.

The warping error (Lai et al. 2018): a picture is compared with the one before it, moved as the
scene moved, where the scene was in sight in both.
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
from nst.infer.runtime.resize import resized, scaled
from nst.io.images import Array

LONG_SIDE = 640  # photographs are no larger when they are moved
EDGE = 2  # pixels along the border of what is in sight: interpolation reaches beyond
MOTIONS = ("shift", "slide", "turn", "zoom", "bend", "noise", "light")
_SHIFTS = ((1, 0), (1, 2), (3, 1), (2, 5))  # whole pixels down and right, off a grid of four
_SLIDE = (0.5, 1.25)  # pixels
_TURN, _ZOOM, _BEND = 1.0, 1.01, 2.0  # degrees, factor, pixels
_NOISE, _LIGHT = 3.0, 1.04  # levels of standard deviation, factor

Stylize = Callable[[Array], Array]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class MotionError:
    """The warping error under one kind of motion.

    Attributes:
        motion: `shift` by whole pixels, `slide` by fractions, `turn`, `zoom`, `bend`, `noise` or
            `light`.
        rms: root mean square difference in levels, over all photographs.
        photographs: the same of the photographs themselves, which interpolation, noise and light
            leave; a model that changed nothing would have it.
    """

    motion: str
    rms: float
    photographs: float


@dataclass(frozen=True)
class ClipFlicker:
    """The warping error from frame to frame of a film.

    Attributes:
        rms: root mean square difference in levels over the film, where the scene is in sight in
            both frames.
        film: the same of the film itself: noise, light, and what the optical flow missed.
        errors, film_errors: the same of each frame from the second on.
        seen: share of the pixels that count, mean.
        frames: how many were compared, the first one included.
        slice: the middle row of the film over time above that of its pictures, HWC uint8 RGB.
        difference: of the last two frames and of their pictures, moved, side by side, eight times
            enlarged around grey; HWC uint8 RGB.
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
        """The numbers, ready for JSON."""
        names = ("rms", "film", "errors", "film_errors", "seen", "frames")
        return {name: getattr(self, name) for name in names}


def motion_flicker(
    stylize: Stylize,
    photographs: Sequence[Array],
    callback: Callable[[int, int], None] = lambda *_: None,
) -> tuple[MotionError, ...]:
    """Move photographs in known ways and compare their pictures.

    Args:
        stylize: HWC uint8 RGB to the same.
        photographs: HWC uint8 RGB; larger ones are scaled to a long side of 640.
        callback: called with how many pictures were made, and of how many.

    Raises:
        UsageError: no photographs.
    """
    if not photographs:
        raise UsageError("there are no photographs to move")
    sums = {
        motion: np.zeros(3) for motion in MOTIONS
    }  # of squares: pictures', photographs'; pixels
    total = len(photographs) * (len(MOTIONS) + len(_SHIFTS))
    done = 0

    def paint(image: Array) -> Array:
        nonlocal done
        stylized = stylize(image)
        done += 1
        callback(done, total)
        return stylized

    for number, photograph in enumerate(photographs):
        sides = photograph.shape[:2]
        if max(sides) > LONG_SIDE:
            photograph = resized(photograph, scaled((sides[0], sides[1]), LONG_SIDE))
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
    """Compare the pictures of a film's frames, moved by the optical flow (Kroeger et al. 2016).

    What was hidden, by the flow's way there and back, and the edges of motion do not count
    (Ruder et al. 2016, section 4.2).

    Args:
        stylize: HWC uint8 RGB to the same; called frame after frame, so it may remember.
        frames: HWC uint8 RGB, all of one size.
        callback: called after each frame with their number.

    Raises:
        UsageError: fewer than two frames, or too small ones, or of several sizes.
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
        rows.append((frame[middle].copy(), painted[middle].copy()))  # a view would keep the whole
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
        raise UsageError("one frame does not flicker: give a film of two frames or more")
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
    """All numbers, ready for JSON."""
    return {
        "motions": [asdict(motion) for motion in motions],
        "clip": None if clip is None else clip.to_dict(),
    }


def _grid(size: tuple[int, ...]) -> tuple[Values, Values]:
    """Columns and rows of all pixels, [H, W] each."""
    rows, columns = np.indices(size, np.float32)
    return columns, rows


def _places(motion: str, size: tuple[int, ...], seed: int) -> list[Values]:
    """Where each pixel was before the motion, [H, W, 2] as (column, row), one for each try."""
    columns, rows = _grid(size)
    still = np.stack([columns, rows], 2)
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
    """The image with the pixels of `places`, as float32."""
    warped = cv2.remap(
        image.astype(np.float32),
        places[..., 0],
        places[..., 1],
        cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.float32)


def _inside(places: Values, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where `places` lie in an image of (height, width)."""
    last = np.array([size[1], size[0]], np.float32) - 1
    return np.asarray(((places >= EDGE) & (places <= last - EDGE)).all(2), np.bool_)


def _squares(expected: Values, found: Array, seen: NDArray[np.bool_]) -> float:
    return float(np.square((expected - found)[seen], dtype=np.float64).sum())


def _moved(flow: cv2.DISOpticalFlow, before: Array, now: Array) -> tuple[Values, NDArray[np.bool_]]:
    """Where each pixel of `now` was in `before`, and whether it was in sight there."""
    nothing: Any = None  # to begin with
    try:
        back = np.asarray(flow.calc(now, before, nothing), np.float32)
        there = np.asarray(flow.calc(before, now, nothing), np.float32)
    except cv2.error as error:
        sizes = " and ".join(dict.fromkeys(f"{g.shape[1]}×{g.shape[0]}" for g in (before, now)))
        raise UsageError(
            f"no optical flow between frames of {sizes} pixels: "
            "give a film of one size, of 12 pixels or more a side"
        ) from error
    places = np.stack(_grid(now.shape), 2) + back
    again = cv2.remap(there, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    lengths = np.square(back).sum(2) + np.square(again).sum(2)
    hidden = np.square(back + again).sum(2) > 0.01 * lengths + 0.5
    edges = sum(np.square(np.gradient(back, axis=axis)).sum(2) for axis in (0, 1))
    steep = edges > 0.01 * np.square(back).sum(2) + 0.002
    return places, _inside(places, now.shape) & ~hidden & ~steep

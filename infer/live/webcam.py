"""The live loop: the newest frame of a camera, repainted, in a window, a file, another program."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nst.color import transfer as color
from nst.config import KeepColor, check_number
from nst.errors import UsageError
from nst.infer.live.camera import Camera, Captured
from nst.infer.live.recording import Recording
from nst.infer.runtime.resize import resized, scaled
from nst.infer.runtime.signature import SMALLEST_SIDE
from nst.io.images import Array, save_image

PATIENCE = 0.05  # seconds without a frame after which the window is seen to
STEP = 0.1  # of the strength, a key
_RECENT = 2.0  # seconds over which frames are counted

# Keys, by what `Window.key` calls them, and what they do.
KEYS = {
    "n": "next style",
    "p": "previous style",
    "+": "stronger",
    "-": "weaker",
    "c": "keep colours",
    "s": "split: the original on the left",
    "m": "mirror",
    "f": "full screen",
    "i": "figures",
    "space": "snapshot",
    "r": "record",
    "h": "help",
    "q": "quit",
}


class Style(Protocol):
    """A `Stylizer`, as far as it is needed."""

    @property
    def name(self) -> str: ...
    @property
    def keep_color(self) -> KeepColor | None: ...
    def __call__(self, image: Array, strength: float = 1.0) -> Array: ...


class Window(Protocol):
    """Where frames are shown and keys are pressed."""

    def show(self, image: Array) -> None: ...
    def key(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    def full_screen(self, on: bool) -> None: ...


class CameraOutput(Protocol):
    """Where repainted frames go besides, HWC uint8 RGB: a virtual camera."""

    def send(self, image: Array) -> None: ...


@dataclass(frozen=True)
class WebcamConfig:
    """Options of `run_webcam`.

    Args:
        size: long side at which frames are repainted and shown; None for the camera's.
        fps: frame rate to hold by choosing that size; None to leave it.
        strength: 0 to 1.
        keep_color: how to give each frame its own colours back, or `none`; None for what the style
            asks for.
        mirror: whether left and right change places.
        figures: whether the picture tells frame rate, age and style.
        snapshots: folder of the pictures that a key saves.
        record: file to record into from the beginning; None for one in `snapshots`, by a key.
        seconds: after which to end; None for never.
    """

    size: int | None = None
    fps: float | None = None
    strength: float = 1.0
    keep_color: KeepColor | Literal["none"] | None = None
    mirror: bool = False
    figures: bool = True
    snapshots: Path = Path()
    record: Path | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_number("strength", self.strength, most=1)
        if self.size is not None:
            check_number("size", self.size, least=64, most=8192)
        if self.fps is not None:
            check_number("fps", self.fps, least=1, most=240)
        if self.seconds is not None:
            check_number("seconds", self.seconds, above=True)
        if self.size is not None and self.fps is not None:
            raise UsageError("size and fps are both given: fps chooses the size")


@dataclass(frozen=True)
class View:
    """What is being done now, and how; keys change it."""

    style: int
    strength: float
    keep_color: KeepColor | None
    mirror: bool
    figures: bool
    split: bool = False
    help: bool = False
    full_screen: bool = False


@dataclass(frozen=True)
class WebcamResult:
    """What became of a live session.

    Attributes:
        frames: repainted; captured: that the camera gave; seconds: that it lasted.
        age: seconds from a frame's arrival to its being shown, the median.
        files: that were written: snapshots and recordings.
    """

    frames: int
    captured: int
    seconds: float
    age: float
    files: tuple[Path, ...]


class Pacer:
    """Chooses the long side at which a frame rate is held, with hysteresis."""

    def __init__(self, fps: float, side: int) -> None:
        self.budget, self.most = 0.9 / fps, side
        self.side = side
        self._times: deque[float] = deque(maxlen=8)

    def __call__(self, seconds: float) -> int:
        """The side for the next frame, after one took `seconds`."""
        self._times.append(seconds)
        if len(self._times) < self._times.maxlen:  # type: ignore[operator]
            return self.side
        usual = float(np.median(self._times))
        # Time goes with the area. Down where it is too slow, up where a tenth is to spare.
        wanted = self.side * (self.budget / usual) ** 0.5
        if usual > self.budget or wanted > 1.15 * self.side:
            side = int(np.clip(round(wanted * 0.97 / 16) * 16, 128, self.most))
            if side != self.side:
                self.side = side
                self._times.clear()
        return self.side


def run_webcam(
    styles: Sequence[Style],
    camera: Camera,
    window: Window | None = None,
    config: WebcamConfig | None = None,
    sinks: Sequence[CameraOutput] = (),
    say: Callable[[str], None] = lambda _: None,
) -> WebcamResult:
    """Repaint what a camera sees until the window is closed, `q` is pressed or the source ends.

    A slow network skips frames: each that is repainted is the newest. Ctrl-C ends it, too.

    Args:
        styles: the first is shown at first; keys go through them.
        window: None for none: then `sinks`, or a recording, get the frames.
        sinks: get every repainted frame.
        say: called with one line for what a person should know: a file, a size, a lost camera.

    Raises:
        VideoError: a camera or stream went away and did not come back.
    """
    return _Live(styles, camera, window, config or WebcamConfig(), sinks, say).run()


class _Live:
    """One session."""

    def __init__(
        self,
        styles: Sequence[Style],
        camera: Camera,
        window: Window | None,
        config: WebcamConfig,
        sinks: Sequence[CameraOutput],
        say: Callable[[str], None],
    ) -> None:
        if not styles:
            raise UsageError("no style is given: name a model with --style")
        self.styles, self.camera, self.window = styles, camera, window
        self.config, self.sinks, self.say = config, sinks, say
        self.view = View(
            style=0,
            strength=config.strength,
            keep_color=self._kept(0),
            mirror=config.mirror,
            figures=config.figures,
        )
        self.pacer: Pacer | None = None
        self.recording: Recording | None = None
        self.files: list[Path] = []
        self.shown: deque[float] = deque()
        self.ages: list[float] = []
        self.last: Array | None = None
        self.frames = self.captured = 0
        self.done = False

    def run(self) -> WebcamResult:
        begun, told = time.monotonic(), False
        if self.config.record is not None:
            self._record(self.config.record)
        try:
            while not self.done:
                if self.config.seconds and time.monotonic() - begun >= self.config.seconds:
                    break
                captured = self.camera.newest(PATIENCE)
                if captured is not None:
                    told = False
                    self._frame(captured)
                elif self.camera.ended:
                    last = self.camera.newest(0)  # it may have come, or failed, meanwhile
                    if last is None:
                        break
                    self._frame(last)
                elif self.camera.away and not told:
                    told = True
                    self.say("the camera is away: waiting for it")
                    if self.window is not None and self.last is not None:
                        self.window.show(self._dressed(self.last))
                self._attend()
        except KeyboardInterrupt:
            pass
        finally:
            self._stop_recording()
        return WebcamResult(
            frames=self.frames,
            captured=self.captured,
            seconds=time.monotonic() - begun,
            age=float(np.median(self.ages)) if self.ages else 0.0,
            files=tuple(self.files),
        )

    def _frame(self, captured: Captured) -> None:
        view, style = self.view, self.styles[self.view.style]
        self.captured = captured.number
        image = self._resized(captured.image)
        if view.mirror:
            image = np.ascontiguousarray(image[:, ::-1])
        started = time.perf_counter()
        stylized = style(image, view.strength)
        if view.keep_color is not None:
            stylized = color.keep_color(stylized, image, view.keep_color)
        if self.pacer is not None:
            before = self.pacer.side
            if self.pacer(time.perf_counter() - started) != before:
                self.say(f"repainting at {self.pacer.side} pixels to hold {self.config.fps:g} fps")
        if view.split:
            half = image.shape[1] // 2
            stylized = np.hstack([image[:, :half], stylized[:, half:]])
        self.last = stylized
        for sink in self.sinks:
            sink.send(stylized)
        if self.recording is not None:
            self.recording.write(stylized, captured.time)
        if self.window is not None:
            self.window.show(self._dressed(stylized))
        now = time.monotonic()
        self.ages.append(now - captured.time)
        self.ages = self.ages[-1000:]
        self.shown.append(now)
        while self.shown[0] < now - _RECENT:
            self.shown.popleft()
        self.frames += 1

    def _resized(self, image: Array) -> Array:
        side = self.config.size
        if self.config.fps is not None:
            if self.pacer is None:
                self.pacer = Pacer(self.config.fps, max(image.shape[:2]))
            side = self.pacer.side
        if side is None:
            return image
        height, width = image.shape[:2]
        return resized(image, scaled((height, width), side, SMALLEST_SIDE))

    def _attend(self) -> None:
        """See to the window: its keys, its close button."""
        if self.window is None:
            return
        key = self.window.key()
        if self.window.closed or key == "q":
            self.done = True
        elif key is not None:
            self._press(key)

    def _press(self, key: str) -> None:
        view, count = self.view, len(self.styles)
        if key in ("n", "p"):
            style = (view.style + (1 if key == "n" else -1)) % count
            view = replace(view, style=style, keep_color=self._kept(style))
        elif key in ("+", "-"):
            strength = view.strength + (STEP if key == "+" else -STEP)
            view = replace(view, strength=round(min(1.0, max(0.0, strength)), 2))
        elif key == "c":
            chosen = self._kept(view.style) or "luminance"
            view = replace(view, keep_color=None if view.keep_color else chosen)
        elif key == "s":
            view = replace(view, split=not view.split)
        elif key == "m":
            view = replace(view, mirror=not view.mirror)
        elif key == "i":
            view = replace(view, figures=not view.figures)
        elif key == "h":
            view = replace(view, help=not view.help)
        elif key == "f":
            view = replace(view, full_screen=not view.full_screen)
            assert self.window is not None
            self.window.full_screen(view.full_screen)
        elif key == "space" and self.last is not None:
            path = _unused(self.config.snapshots, ".png")
            save_image(path, self.last)
            self.files.append(path)
            self.say(f"snapshot {path}")
        elif key == "r":
            if self.recording is None:
                self._record(_unused(self.config.snapshots, ".mp4"))
            else:
                self._stop_recording()
        self.view = view

    def _kept(self, style: int) -> KeepColor | None:
        """How a style's frames get their own colours back, before a key changes that."""
        asked = self.config.keep_color
        return None if asked == "none" else asked or self.styles[style].keep_color

    def _record(self, path: Path) -> None:
        self.recording = Recording(path, self.camera.rate or 30.0)
        self.say(f"recording {path}")

    def _stop_recording(self) -> None:
        if self.recording is None:
            return
        recording, self.recording = self.recording, None
        recording.close()
        if recording.frames:
            self.files.append(recording.path)
            self.say(f"recorded {recording.path}: {recording.frames} frames")

    def _dressed(self, image: Array) -> Array:
        """What the window shows: with figures and help written on it."""
        lines = []
        if self.view.figures:
            style = self.styles[self.view.style]
            span = self.shown[-1] - self.shown[0] if len(self.shown) > 1 else 0.0
            pace = (len(self.shown) - 1) / span if span else 0.0
            age = 1000 * self.ages[-1] if self.ages else 0.0
            lines.append(f"{pace:.0f} fps  {age:.0f} ms  {style.name}  {self.view.strength:.0%}")
        if self.recording is not None:
            lines.append("recording")
        if self.camera.away:
            lines.append("the camera is away: waiting for it")
        if self.view.help:
            lines += [f"{key}  {what}" for key, what in KEYS.items()]
        return _written(image, lines) if lines else image


def _written(image: Array, lines: Sequence[str]) -> Array:
    """Text in the upper left corner, light with a dark rim, whatever is behind it."""
    size = max(12, min(image.shape[:2]) // 28)
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).multiline_text(
        (size // 2, size // 2),
        "\n".join(lines),
        (255, 255, 255),
        ImageFont.load_default(size),
        spacing=size // 4,
        stroke_width=max(1, size // 10),
        stroke_fill=(0, 0, 0),
    )
    return np.asarray(picture)


def _unused(folder: Path, suffix: str) -> Path:
    """A name by the clock that no file has."""
    stem = time.strftime("nst-%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        if not path.exists():
            return path
    raise UsageError(f"{folder} has no name left for a picture: name another folder")

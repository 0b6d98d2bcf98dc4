"""Repaints a camera live, into a window, a recording and the cameras of other programs."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from nst.color import transfer as color
from nst.config import KeepColor, check_numbers
from nst.errors import NstError, UsageError
from nst.infer.live.camera import Camera, Captured
from nst.infer.live.overlay import draw_text
from nst.infer.live.pacer import Pacer
from nst.infer.live.recording import Recording
from nst.infer.runtime.resize import resized, scaled
from nst.infer.runtime.signature import SMALLEST_SIDE
from nst.io.images import Array, save_image

PATIENCE = 0.05  # seconds without a frame after which the window's keys are read
STEP = 0.1  # change of the strength by a key
_RECENT = 2.0  # seconds over which the frame rate is measured
_AWAY = "the camera is away: waiting for it"

# Keys, as `Window.key` names them, and what they do.
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
# The settings of a `View` that keys turn on and off.
_TOGGLES = {"s": "split", "m": "mirror", "i": "figures", "h": "help", "f": "full_screen"}


class LiveStylizer(Protocol):
    """Repaints a frame, HWC uint8 RGB, as a `Stylizer` or a `TemporalStylizer` does."""

    @property
    def name(self) -> str: ...
    @property
    def keep_color(self) -> KeepColor | None: ...
    def __call__(self, image: Array, strength: float = 1.0) -> Array: ...


class Window(Protocol):
    """Shows frames, HWC uint8 RGB, and returns the keys that are pressed."""

    def show(self, image: Array) -> None: ...
    def key(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    def full_screen(self, on: bool) -> None: ...


class CameraOutput(Protocol):
    """Takes the repainted frames, HWC uint8 RGB, as a `VirtualCamera` does."""

    def send(self, image: Array) -> None: ...


@dataclass(frozen=True)
class WebcamConfig:
    """Options of `run_webcam`.

    Args:
        size: long side in pixels at which frames are repainted and shown; None for the camera's.
        fps: frame rate to hold by choosing that size; None to keep the size.
        strength: 0 to 1.
        keep_color: method that keeps each frame's own colours, or `none`; None for the model's
            default.
        mirror: whether to flip frames from left to right.
        figures: whether to write frame rate, age and style on the frames in the window.
        snapshots: folder for the snapshots and recordings that keys make.
        record: file to record into from the beginning; None to record by a key only.
        seconds: length of the session; None for no limit.
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
        check_numbers(self, "strength", most=1)
        check_numbers(self, "size", least=64, most=8192)
        check_numbers(self, "fps", least=1, most=240)
        check_numbers(self, "seconds", above=True)
        if self.size is not None and self.fps is not None:
            raise UsageError("size and fps are both given: fps chooses the size")


@dataclass(frozen=True)
class View:
    """The settings that keys change."""

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
    """The outcome of a live session.

    Attributes:
        frames: number of frames repainted.
        captured: number of frames that the camera gave.
        seconds: length of the session.
        age: median of the seconds from a frame's arrival to its display.
        files: the snapshots and recordings that were written.
    """

    frames: int
    captured: int
    seconds: float
    age: float
    files: tuple[Path, ...]


def run_webcam(
    styles: Sequence[LiveStylizer],
    camera: Camera,
    window: Window | None = None,
    config: WebcamConfig | None = None,
    outputs: Sequence[CameraOutput] = (),
    say: Callable[[str], None] = lambda _: None,
) -> WebcamResult:
    """Repaint what a camera sees until the window is closed, `q` is pressed or the source ends.

    A slow network skips frames: it always repaints the newest one. Ctrl-C ends the session, too.
    A snapshot or a recording that can't be written is reported by `say`, and the session goes on.

    Args:
        styles: the models; the first is used first, keys change to the others.
        window: where frames are shown; None for a session that only records or feeds `outputs`.
        outputs: further receivers of each repainted frame.
        say: called with a line for the user: a file, a size, a lost camera.

    Raises:
        VideoError: the camera or stream went away and did not come back. NstError: the recording
        can't be written, and it fails from the beginning or nothing else takes the frames.
    """
    return _Session(styles, camera, window, config or WebcamConfig(), outputs, say).run()


@dataclass
class _Session:
    """A live session and its state."""

    styles: Sequence[LiveStylizer]
    camera: Camera
    window: Window | None
    config: WebcamConfig
    outputs: Sequence[CameraOutput]
    say: Callable[[str], None]
    pacer: Pacer | None = None
    recording: Recording | None = None
    files: list[Path] = field(default_factory=list)
    shown: deque[float] = field(default_factory=deque)
    ages: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    last: Array | None = None
    frames: int = 0
    captured: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        if not self.styles:
            raise UsageError("no style is given: name a model")
        self.view = View(
            style=0,
            strength=self.config.strength,
            keep_color=self._default_keep_color(0),
            mirror=self.config.mirror,
            figures=self.config.figures,
        )

    def run(self) -> WebcamResult:
        begun, reported = time.monotonic(), False
        if self.config.record is not None:
            self._record(self.config.record)
        try:
            while not self.done:
                if self.config.seconds and time.monotonic() - begun >= self.config.seconds:
                    break
                captured = self.camera.newest(PATIENCE)
                if captured is not None:
                    reported = False
                    self._frame(captured)
                elif self.camera.ended:
                    last = self.camera.newest(0)  # a frame, or an error, may have come meanwhile
                    if last is None:
                        break
                    self._frame(last)
                elif self.camera.away and not reported:
                    reported = True
                    self.say(_AWAY)
                    if self.window is not None and self.last is not None:
                        self.window.show(self._annotated(self.last))
                self._handle_window()
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
        for output in self.outputs:
            output.send(stylized)
        if self.recording is not None:
            self._record_frame(self.recording, stylized, captured.time)
        if self.window is not None:
            self.window.show(self._annotated(stylized))
        now = time.monotonic()
        self.ages.append(now - captured.time)
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
        return resized(image, scaled(image.shape[:2], side, SMALLEST_SIDE))

    def _handle_window(self) -> None:
        """Handle the window's keys and its close button."""
        if self.window is None:
            return
        key = self.window.key()
        if self.window.closed or key == "q":
            self.done = True
        elif key is not None:
            try:
                self._press(key)
            except NstError as error:  # a snapshot or a recording that can't be written
                self.say(str(error))

    def _press(self, key: str) -> None:
        view, count = self.view, len(self.styles)
        if key in ("n", "p"):
            style = (view.style + (1 if key == "n" else -1)) % count
            view = replace(view, style=style, keep_color=self._default_keep_color(style))
        elif key in ("+", "-"):
            strength = view.strength + (STEP if key == "+" else -STEP)
            view = replace(view, strength=round(min(1.0, max(0.0, strength)), 2))
        elif key == "c":
            chosen = self._default_keep_color(view.style) or "luminance"
            view = replace(view, keep_color=None if view.keep_color else chosen)
        elif key in _TOGGLES:
            changed: dict[str, Any] = {_TOGGLES[key]: not getattr(view, _TOGGLES[key])}
            view = replace(view, **changed)
            if key == "f" and self.window is not None:
                self.window.full_screen(view.full_screen)
        elif key == "space" and self.last is not None:
            path = _unused_name(self.config.snapshots, ".png")
            save_image(path, self.last)
            self.files.append(path)
            self.say(f"snapshot {path}")
        elif key == "r":
            if self.recording is None:
                self._record(_unused_name(self.config.snapshots, ".mp4"))
            else:
                self._stop_recording()
        self.view = view

    def _default_keep_color(self, style: int) -> KeepColor | None:
        """Return how a style's frames keep their own colours, before a key changes that."""
        asked = self.config.keep_color
        return None if asked == "none" else asked or self.styles[style].keep_color

    def _record(self, path: Path) -> None:
        self.recording = Recording(path, self.camera.rate or 30.0)
        self.say(f"recording {path}")

    def _record_frame(self, recording: Recording, image: Array, time: float) -> None:
        try:
            recording.write(image, time)
        except NstError as error:
            if self.frames == 0 or (self.window is None and not self.outputs):
                raise
            self.say(f"the recording ends: {error}")
            self._stop_recording()

    def _stop_recording(self) -> None:
        if self.recording is None:
            return
        recording, self.recording = self.recording, None
        try:
            recording.close()
        finally:
            if recording.saved:
                self.files.append(recording.path)
                frames = f"{'up to ' if recording.partial else ''}{recording.frames} frames"
                self.say(f"recorded {recording.path}: {frames}")

    def _annotated(self, image: Array) -> Array:
        """Return the frame for the window, with figures and help written on it."""
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
            lines.append(_AWAY)
        if self.view.help:
            lines += [f"{key}  {what}" for key, what in KEYS.items()]
        return draw_text(image, lines) if lines else image


def _unused_name(folder: Path, suffix: str) -> Path:
    """Return a path in the folder, named by the clock, that does not exist.

    Raises:
        UsageError: all its names are taken.
    """
    stem = time.strftime("nst-%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        if not os.path.lexists(path):  # False where the folder can't be searched
            return path
    raise UsageError(f"{folder} has no unused name: name another folder")

"""Reads the newest frame of a camera, a stream or a file: a slow network skips frames."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from nst.errors import VideoError
from nst.io.files import Closing
from nst.io.images import Array

RECONNECT = 10.0  # seconds that a camera or stream may be away
_RETRY = 0.5  # seconds from one attempt to the next
_FILE_RATE = 25.0  # frames per second of a file that doesn't say
# OpenCV reads it as it first opens a stream; no thread of ours reads the environment yet.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_log_level = threading.Lock()  # OpenCV has one for the whole process


class Capture(Protocol):
    """The used methods of `cv2.VideoCapture`; frames are HWC uint8 BGR."""

    def isOpened(self) -> bool: ...  # noqa: N802
    def read(self) -> tuple[bool, Any]: ...
    def get(self, propId: int, /) -> float: ...  # noqa: N803
    def set(self, propId: int, value: float, /) -> bool: ...  # noqa: N803
    def release(self) -> None: ...


@dataclass(frozen=True)
class Captured:
    """A captured frame.

    Attributes:
        image: HWC uint8 RGB.
        number: counts the frames that the source gave, from 1, with the skipped ones.
        time: `time.monotonic()` of its arrival.
    """

    image: Array
    number: int
    time: float


class Camera(Closing):
    """Reads a camera, a stream or a file in its own thread and keeps only the newest frame.

    Args:
        source: number of a camera, path of a file, or URL of a stream. A file is played at its
            own pace.
        size: (height, width) to request from the camera, which may give another.
        opener: opens a source; `cv2.VideoCapture` by default.
        reconnect: seconds to wait for a camera or stream that went away; 0 ends at once.

    Attributes:
        rate: frames per second that the source declares; 0 where it declares none.
        away: whether the source went away and is waited for.
        error: why the source ended, if it failed.

    Raises:
        VideoError: there is no such source, or it can't be opened.
    """

    def __init__(
        self,
        source: int | str,
        *,
        size: tuple[int, int] | None = None,
        opener: Callable[[int | str], Capture] | None = None,
        reconnect: float = RECONNECT,
    ) -> None:
        self.source = source
        self._opener = opener or _open
        self._size = size
        self._reconnect = reconnect
        self._is_file = isinstance(source, str) and os.path.exists(source)
        if isinstance(source, str) and not self._is_file and "://" not in source:
            raise VideoError(f"{source} does not exist: give a camera's number, a file or a URL")
        capture = self._connect()
        if capture is None:
            raise VideoError(f"{self._name} cannot be opened: {_ADVICE[type(source)]}")
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else 0.0
        self.away = False
        self.error: VideoError | None = None
        self._newest: Captured | None = None  # not taken yet
        self._news = threading.Condition()
        self._closed = self._ended = False
        self._thread = threading.Thread(target=self._run, args=(capture,), daemon=True)
        self._thread.start()

    def newest(self, timeout: float | None = None) -> Captured | None:
        """Return the newest frame that was not taken yet; wait for it up to `timeout` seconds.

        Returns:
            None if the source has ended or the time is up.

        Raises:
            VideoError: a camera or stream went away and did not come back.
        """
        with self._news:
            self._news.wait_for(lambda: self._newest is not None or self._ended, timeout)
            newest, self._newest = self._newest, None
            if newest is None and self.error is not None:
                raise self.error
            return newest

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self._ended

    def close(self) -> None:
        """Stop reading and release the camera."""
        self._closed = True
        self._thread.join()

    @property
    def _name(self) -> str:
        return f"camera {self.source}" if isinstance(self.source, int) else self.source

    def _connect(self) -> Capture | None:
        try:
            capture = self._opener(self.source)
        except cv2.error:  # a number that no camera can have
            return None
        if not capture.isOpened():
            capture.release()
            return None
        if self._size is not None and isinstance(self.source, int):
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[1])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[0])
        return capture

    def _run(self, capture: Capture | None) -> None:
        number = 0
        due = time.monotonic()
        pause = 1 / (self.rate or _FILE_RATE) if self._is_file else 0.0
        try:
            while not self._closed and capture is not None:
                there, image = capture.read()
                if not there or image is None:
                    capture.release()
                    capture = None if self._is_file else self._reconnected()
                    continue
                number += 1
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                with self._news:
                    self._newest = Captured(rgb, number, time.monotonic())
                    self._news.notify_all()
                if pause:
                    due = max(due + pause, time.monotonic() - pause)
                    time.sleep(max(0.0, due - time.monotonic()))
        except cv2.error as error:
            self.error = VideoError(f"{self._name} broke off: {error.err}")
        finally:
            if capture is not None:
                capture.release()
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _reconnected(self) -> Capture | None:
        """Wait for the source to come back; return None when the time is up or it is closed."""
        if not self._reconnect:
            return None
        self.away = True
        until = time.monotonic() + self._reconnect
        while not self._closed and time.monotonic() < until:
            capture = self._connect()
            if capture is not None:
                self.away = False
                return capture
            time.sleep(min(_RETRY, self._reconnect / 4))
        if not self._closed:
            self.error = VideoError(
                f"{self._name} went away and did not come back within {self._reconnect:g} s: "
                "check its cable or address"
            )
        return None


_ADVICE = {
    int: "is it plugged in, and no other program using it?",
    str: "give a camera's number, a video file or the URL of a stream",
}


def _open(source: int | str) -> Capture:
    """Open a source with OpenCV, which must not print its failures on stderr."""
    logging = cv2.utils.logging
    with _log_level:
        before = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            return cv2.VideoCapture(source)
        finally:
            logging.setLogLevel(before)

"""Records what a live session shows into a video file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from nst.errors import NstError
from nst.infer.runtime.resize import resized
from nst.infer.video.colors import BT709
from nst.infer.video.reader import Frame
from nst.infer.video.writer import VideoWriter
from nst.io.files import check_writable
from nst.io.images import Array

_TIME_BASE = Fraction(1, 1000)  # cameras are uneven


class Recording:
    """Writes frames at the times at which they came; the file appears when it is closed.

    Args:
        path: the suffix names the container.
        rate: approximate frames per second.

    Attributes:
        frames: number of frames written.
        saved: whether the file is in its place.
        partial: whether the file ended early, so that its last frames may be missing.

    Raises:
        NstError: `path` can't be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        check_writable(path)
        self.path, self._rate = path, rate
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._begun, self._last = 0.0, -1
        self.frames, self.saved, self.partial = 0, False, False

    def write(self, image: Array, time: float) -> None:
        """Write a frame, HWC uint8 RGB, that came at `time` seconds; scale one of another size.

        Raises:
            NstError: it can't be written. This closes the recording; what can be played is saved.
        """
        if self._writer is None:
            height, width = (side - side % 2 for side in image.shape[:2])
            self._size, self._begun = (height, width), time
            self._writer = VideoWriter(
                self.path,
                self._size,
                time_base=_TIME_BASE,
                rate=Fraction(round(self._rate * 1000), 1000),
                colors=BT709,
                recoverable=True,
            )
        pts = max(self._last + 1, round((time - self._begun) / float(_TIME_BASE)))
        try:
            self._writer.write(Frame(resized(image, self._size), pts))
        except NstError as error:
            self._writer.abandon(error)
            self.saved = self.partial = self._writer.recovered
            self._writer = None
            raise
        self._last = pts
        self.frames += 1

    def close(self) -> None:
        """Finish the file; without a frame there is none.

        Raises:
            NstError: it can't be written. What can be played is saved.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
            self.saved = True
        except NstError:
            self.saved = self.partial = writer.recovered
            raise

"""What a live session shows, as a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from nst.infer.runtime.resize import resized
from nst.infer.video.reader import Colors, Frame
from nst.infer.video.writer import VideoWriter
from nst.io.images import Array

_UNIT = Fraction(1, 1000)  # timestamps: cameras are uneven
_BT709, _LIMITED = 1, 1


class Recording:
    """Frames at the times at which they came; the file appears when it is closed.

    Args:
        path: the suffix names the container.
        rate: frames per second, about.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._begun, self._last = 0.0, -1
        self.frames = 0

    def write(self, image: Array, time: float) -> None:
        """A frame, HWC uint8 RGB, that came at `time` seconds; one of another size is scaled.

        Raises:
            NstError: it can't be written.
        """
        if self._writer is None:
            height, width = (side - side % 2 for side in image.shape[:2])
            self._size, self._begun = (height, width), time
            self._writer = VideoWriter(
                self.path,
                self._size,
                time_base=_UNIT,
                rate=Fraction(round(self._rate * 1000), 1000),
                colors=Colors(_BT709, _LIMITED),
            )
        pts = max(self._last + 1, round((time - self._begun) / float(_UNIT)))
        self._writer.write(Frame(resized(image, self._size), pts))
        self._last = pts
        self.frames += 1

    def close(self) -> None:
        """Finish the file; without a frame there is none.

        Raises:
            NstError: it can't be written.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None

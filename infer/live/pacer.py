"""Holds a frame rate by choosing the size of the frames."""

from __future__ import annotations

from collections import deque

import numpy as np


class Pacer:
    """Chooses the long side at which a frame rate is held, with hysteresis.

    Args:
        fps: frames per second to hold.
        side: largest side to choose, in pixels.
    """

    def __init__(self, fps: float, side: int) -> None:
        self.budget, self.most = 0.9 / fps, side
        self.side = side
        self._times: deque[float] = deque(maxlen=8)

    def __call__(self, seconds: float) -> int:
        """Return the side for the next frame, after one that took `seconds`."""
        self._times.append(seconds)
        if len(self._times) < self._times.maxlen:  # type: ignore[operator]
            return self.side
        usual = float(np.median(self._times))
        # Time grows with the area. Shrink if it is too slow, grow if a tenth is to spare.
        wanted = self.side * (self.budget / usual) ** 0.5
        if usual > self.budget or wanted > 1.15 * self.side:
            side = int(np.clip(round(wanted * 0.97 / 16) * 16, 128, self.most))
            if side != self.side:
                self.side = side
                self._times.clear()
        return self.side

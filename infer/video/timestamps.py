"""Timestamps that always increase, as containers require."""

from __future__ import annotations

from fractions import Fraction

import av

JUMP = 1  # seconds; a larger step back means that another recording begins, not disorder


class MonotonicTimestamps:
    """Corrects the timestamps of one stream so that they never go back.

    Recordings that were joined start again at 0 in the middle; they are shown one after another.
    """

    def __init__(self, time_base: Fraction | None) -> None:
        self._jump = JUMP / (time_base or Fraction(1, av.time_base))
        self._last: int | None = None
        self._next = self._offset = 0

    def correct(self, time: int | None, duration: int) -> int:
        """Return the corrected timestamp, in the stream's time base.

        Args:
            time: the timestamp in the file; None puts the frame right after the one before.
            duration: of the frame or packet.
        """
        now = self._next if time is None else time + self._offset
        if self._last is not None and now <= self._last:
            if self._last - now > self._jump:
                self._offset += self._next - now
                now = self._next
            else:
                now = self._last + 1
        self._last, self._next = now, now + max(1, duration)
        return now

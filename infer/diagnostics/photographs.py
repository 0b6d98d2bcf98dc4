"""The photographs that the diagnostics stylise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nst.errors import UsageError
from nst.io.images import Array

Stylize = Callable[[Array], Array]  # HWC uint8 RGB to the same shape; a Stylizer is one


def check_photographs(photographs: Sequence[Array]) -> None:
    """Raise `UsageError` if there are no photographs."""
    if not photographs:
        raise UsageError("there are no photographs: give one at least")


def trim_panorama(photograph: Array) -> Array:
    """Return the middle of a photograph, at most twice as long as short, to limit memory."""
    height, width = photograph.shape[:2]
    most = 2 * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return photograph[top : top + most, left : left + most]

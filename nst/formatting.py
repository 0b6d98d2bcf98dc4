"""Formats numbers for people."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Format seconds as minutes and hours: 65 as 1:05, 3665 as 1:01:05."""
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def thousands(value: float) -> str:
    """Format a loss in thousands: 152700 as 153k."""
    return f"{value / 1e3:.0f}k" if value >= 1e4 else f"{value / 1e3:.1f}k"

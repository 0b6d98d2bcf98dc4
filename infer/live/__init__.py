"""Repaints a camera live: capture, window, recording."""

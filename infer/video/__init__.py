"""Repaints video files: reads, repaints and writes them, with less flicker over time."""

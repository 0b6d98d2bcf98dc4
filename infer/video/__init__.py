"""Repaints video files: reads, paints, writes, keeps frames steady."""

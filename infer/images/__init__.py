"""Repaints image files."""

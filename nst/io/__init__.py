"""Reads and writes images, files and cached results."""

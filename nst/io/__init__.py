"""Reads and writes images, files and the cache."""

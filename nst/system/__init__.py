"""Tells which devices, CPU features and limits this process has."""

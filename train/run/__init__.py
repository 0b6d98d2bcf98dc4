"""Writes the folder of a run: configuration, log, plot, checkpoints."""

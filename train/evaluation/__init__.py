"""Scores a model against the optimiser of pixels (Gatys et al.)."""

"""Scores a model against the optimiser of Gatys et al."""

"""Trains: the loop, a step, the optimiser, the teacher, several GPUs."""

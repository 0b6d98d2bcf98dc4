"""Repaints photographs, films and a camera with a model, without torch."""

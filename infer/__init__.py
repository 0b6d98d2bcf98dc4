"""A model repaints images. Nothing here loads torch."""

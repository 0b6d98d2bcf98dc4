"""Turns a style image into a model."""
